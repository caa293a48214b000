"""HLS: a playlist and its segments in a folder, for a web server to hand out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import av

from pipeline.channel import Policy
from pipeline.errors import SinkError
from pipeline.roles import Frames
from pipeline.sinks.destination import Output, check_file, check_folder, disk_errors
from pipeline.sinks.encoder import DEFAULT_QUALITY, choose_encoder
from pipeline.sinks.video import Writer
from pipeline.sources.info import AudioTap, SourceInfo

HLS_SUFFIX = ".m3u8"

# Players begin three segments before the end (RFC 8216, 6.3.3).
_SEGMENT_S = 2.0
_LIVE_SEGMENTS = 6


class HlsSink:
    """Writes `frame.picture` as `path`, a playlist, with its segments (MPEG-TS) beside it.

    Of a file every frame is written, every segment kept and the playlist ended, as a video on
    demand. A live source gives a live stream: the last few segments, and a viewer's policy.
    """

    name = "hls"
    reads_labels = False
    advice = "encoding is the limit: a hardware encoder (--encoder) or a smaller source is faster"

    def __init__(
        self,
        path: Path,
        info: SourceInfo,
        *,
        live: bool,
        encoder: str = "auto",
        quality: int = DEFAULT_QUALITY,
        force: bool = False,
    ) -> None:
        if "%" in path.name:
            raise SinkError(f"{path}: the name of a playlist may hold no %")  # FFmpeg fills it in
        if path.parent.is_dir():
            check_file(path, force)
        else:
            check_folder(path.parent, force)
        self.policy: Policy = "drop_oldest" if live else "block"
        self._encoder = choose_encoder(
            ".ts", encoder, quality, low_latency=live, keyframe_s=_SEGMENT_S
        )
        self._info, self._live = info, live
        self.output = Output(path, self._encoder.name)
        self.notes: list[str] = []
        self.audio: AudioTap | None = None
        """Compressed audio to be written beside the pictures; to be set before `run`."""

    def run(self, frames: Frames) -> Frames:
        """Writes each frame and passes it on."""
        path, writer = self.output.path, None
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
            container: Any = av.open(
                str(path), "w", format="hls", container_options=self._options()
            )
        try:
            for frame in frames:
                picture = frame.held_picture
                assert picture is not None
                with disk_errors(path):
                    if writer is None:
                        writer = Writer(container, self._encoder, self._info, self.audio)
                        self.notes += writer.start(*picture.shape[:2])
                    writer.write(frame)
                self.output.frames += 1
                yield frame
        except BaseException:
            # What is there stays, and a playlist that ends can be played.
            with suppress(Exception):
                if writer is not None:
                    writer.finish()
                container.close()
            raise
        with disk_errors(path):
            if writer is not None:
                writer.finish()
            container.close()
        self.output.complete = bool(self.output.frames)

    def _options(self) -> dict[str, str]:
        path = self.output.path
        segments = str(path.with_suffix("")) + "_%05d.ts"
        common = {"hls_time": str(_SEGMENT_S), "hls_segment_filename": segments}
        if self._live:
            return {
                **common,
                "hls_list_size": str(_LIVE_SEGMENTS),
                "hls_flags": "delete_segments+independent_segments",
            }
        return {
            **common,
            "hls_list_size": "0",
            "hls_playlist_type": "event",  # can be watched while it grows; ends with the video
            "hls_flags": "independent_segments",
        }
