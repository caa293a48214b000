"""Class ids as lossless video: the decoded gray value of a pixel is its class id, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av

from pipeline.channel import Policy
from pipeline.fit import fit
from pipeline.roles import Frames
from pipeline.sinks.destination import Output, check_file, playable_frames, whole_file
from pipeline.sinks.video import open_container
from pipeline.sources.info import SourceInfo

MASK_VIDEO_SUFFIX = ".mkv"  # FFV1 in Matroska: what archives use (RFC 9043, RFC 9559)


class MaskVideoSink:
    """Encodes `frame.labels` as FFV1 gray in Matroska, with the source's timestamps."""

    policy: Policy = "block"
    takes_card_pictures = True  # it looks at none
    name = "mask"
    advice = "compressing masks is the limit: write the overlay alone, or fewer frames"

    def __init__(self, path: Path, info: SourceInfo, *, force: bool = False) -> None:
        check_file(path, force)
        self.output = Output(path, "ffv1")
        self.notes: list[str] = []
        self._info = info

    def run(self, frames: Frames) -> Frames:
        """Writes each frame and passes it on."""
        with whole_file(self.output, playable_frames) as path:
            with open_container(path) as container:
                stream: Any = None
                for frame in frames:
                    assert frame.labels is not None
                    if stream is None:
                        stream = container.add_stream("ffv1", rate=self._info.rate or 25)
                        stream.height, stream.width = frame.labels.shape
                        stream.pix_fmt = "gray"
                        stream.time_base = self._info.time_base
                        stream.codec_context.time_base = self._info.time_base
                        stream.codec_context.thread_count = 1
                        stream.codec_context.color_range = 2  # full: 0..20 are ids, not levels
                    labels = fit(frame.labels, stream.height, stream.width, nearest=True)
                    video = av.VideoFrame.from_numpy_buffer(labels, "gray")
                    video.pts, video.time_base = frame.pts, frame.time_base
                    if frame.duration:
                        video.duration = frame.duration
                    container.mux(stream.encode(video))
                    self.output.frames += 1
                    yield frame
                if stream is not None:
                    container.mux(stream.encode(None))
