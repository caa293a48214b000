"""Where frames go: `open_output` and `open_mask` find the right kind for a path."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from engines.card import Card
from pipeline.errors import SinkError
from pipeline.sinks.destination import Output, disk_errors
from pipeline.sinks.encoder import CONTAINERS, DEFAULT_QUALITY
from pipeline.sinks.hls import HLS_SUFFIX, HlsSink
from pipeline.sinks.images import PICTURE_SUFFIXES, ImageSink, encode_picture, mask_encoder
from pipeline.sinks.masks import MASK_VIDEO_SUFFIX, MaskVideoSink
from pipeline.sinks.protocols import is_stream
from pipeline.sinks.statistics import StatisticsSink
from pipeline.sinks.stream import StreamSink
from pipeline.sinks.video import VideoSink
from pipeline.sources import AnySource

__all__ = [
    "HlsSink",
    "ImageSink",
    "MaskVideoSink",
    "Output",
    "StatisticsSink",
    "StreamSink",
    "VideoSink",
    "is_stream",
    "open_mask",
    "open_output",
]


def open_output(
    path: str | Path,
    source: AnySource,
    *,
    encoder: str = "auto",
    quality: int = DEFAULT_QUALITY,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> VideoSink | ImageSink | StreamSink | HlsSink:
    """A sink for the coloured pictures: a video by its suffix, an image, a %06d pattern, a folder,
    an HLS playlist, or the address of a receiver, about whose absence `say` is told. Raises
    SinkError when it cannot be made there.
    """
    if is_stream(str(path)):
        stream = StreamSink(str(path), source.info, encoder=encoder, quality=quality, say=say)
        if source.info.audio:
            stream.notes.append(f"{stream.output.where} is sent without the source's audio")
        return stream
    target = Path(path)
    if target.suffix.lower() == HLS_SUFFIX:
        hls = HlsSink(
            target, source.info, live=source.live, encoder=encoder, quality=quality, force=force
        )
        hls.audio = source.tap_audio()
        return hls
    if target.suffix.lower() in CONTAINERS:
        sink = VideoSink(target, source.info, encoder=encoder, quality=quality, force=force)
        sink.audio = source.tap_audio()  # only now: nobody would empty a refused sink's tap
        return sink
    if _is_images(target, PICTURE_SUFFIXES, str(path)):
        frames, folder = source.info.frames, _is_folder(target, str(path))
        return ImageSink(
            target, encode_picture, name="images", frames=frames, folder=folder, force=force
        )
    raise SinkError(
        f"{path}: {target.suffix} is not written; allowed: {', '.join(CONTAINERS)}, "
        f"{HLS_SUFFIX}, {', '.join(PICTURE_SUFFIXES)}, a %06d pattern of those, or a folder"
    )


def open_mask(
    path: str | Path, source: AnySource, card: Card, *, force: bool = False
) -> MaskVideoSink | ImageSink:
    """A sink for class ids: lossless .mkv, a .png, a %06d.png pattern, or a folder of PNGs."""
    target = Path(path)
    if target.suffix.lower() == MASK_VIDEO_SUFFIX:
        return MaskVideoSink(target, source.info, force=force)
    if _is_images(target, (".png",), str(path)):
        frames, folder = source.info.frames, _is_folder(target, str(path))
        return ImageSink(
            target, mask_encoder(card), name="mask", frames=frames, folder=folder, force=force
        )
    raise SinkError(
        f"{path}: a mask must be lossless; allowed: {MASK_VIDEO_SUFFIX} (FFV1), .png, "
        "a %06d.png pattern, or a folder"
    )


def _is_folder(path: Path, text: str) -> bool:
    with disk_errors(path):
        return path.is_dir() or text.endswith(("/", "\\")) or not (path.suffix or "%" in path.name)


def _is_images(path: Path, suffixes: tuple[str, ...], text: str) -> bool:
    if _is_folder(path, text):
        return True
    if re.search(r"%(?!0?\d*d)", path.name) or path.name.count("%") > 1:
        raise SinkError(f"{path}: a pattern numbers its files by one %d or %06d")
    return path.suffix.lower() in suffixes
