"""Still images: the coloured pictures, or class ids as PNG with the classes' colours as palette."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from engines.card import Card
from pipeline.channel import Policy
from pipeline.errors import SinkError
from pipeline.frame import Frame, Image
from pipeline.roles import Frames
from pipeline.sinks.destination import Output, check_file, check_folder, disk_errors

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

Encode = Callable[[Frame, str], bytes]


class ImageSink:
    """One file a frame.

    `path` is a folder (PNGs, named after the source's images, with a number where a name comes
    twice, or numbered), a pattern such as out/%06d.png, or, for a single frame, a file.
    """

    policy: Policy = "block"
    advice = (
        "compressing images is the limit: write a video, or .jpg (-o 'out/%06d.jpg'), which is "
        "faster than .png"
    )

    def __init__(
        self,
        path: Path,
        encode: Encode,
        *,
        name: str,
        frames: int | None,
        folder: bool = False,
        force: bool = False,
    ) -> None:
        self.name = name
        self.takes_card_pictures = name == "mask"  # which are made of labels alone
        self.notes: list[str] = []
        self._encode = encode
        self._taken: set[str] = set()
        self._pattern = bool(re.search(r"%0?\d*d", path.name))
        folder = folder or not path.suffix or path.is_dir()
        self._pattern = self._pattern and not folder
        self._single = not self._pattern and not folder
        self._suffix = path.suffix.lower() if self._single or self._pattern else ".png"
        if self._single:
            if frames != 1:
                raise SinkError(
                    f"{path} is one image, but the source has {frames or 'many'} frames; name a "
                    f"folder, or a pattern such as {path.stem}_%06d{path.suffix}"
                )
            check_file(path, force)
        else:
            check_folder(path.parent if self._pattern else path, force)
        self.output = Output(path, self._suffix.lstrip("."))

    def run(self, frames: Frames) -> Frames:
        """Writes each frame and passes it on."""
        folder = self.output.path.parent
        if not (self._single or self._pattern):
            folder = self.output.path
        with disk_errors(self.output.path):
            folder.mkdir(exist_ok=True)
        for frame in frames:
            target = self._target(frame)
            with disk_errors(target):
                write_whole(target, self._encode(frame, self._suffix))
            self.output.frames += 1
            yield frame
        self.output.complete = True

    def _target(self, frame: Frame) -> Path:
        path = self.output.path
        if self._single:
            return path
        if self._pattern:
            return path.with_name(path.name % frame.index)
        number = f"{frame.index:06d}"
        name = frame.name or number
        # a.jpg and a.png, or those of two folders; some file systems take A and a for the same.
        if name.casefold() in self._taken:
            name = f"{name}_{number}"
        self._taken.add(name.casefold())
        return path / f"{name}{self._suffix}"


def write_whole(path: Path, data: bytes) -> None:
    """Writes a small file under another name first, so that no half of it is ever seen; processes
    that write the same one at once do not meet.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def encode_picture(frame: Frame, suffix: str) -> bytes:
    """`frame.picture` as a file's bytes."""
    assert frame.picture is not None
    bgr = cv2.cvtColor(frame.picture, cv2.COLOR_RGB2BGR)
    # PNG's level 1 takes a third of the default's time for a tenth more bytes.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if suffix == ".png" else []
    done, data = cv2.imencode(suffix, bgr, options)
    if not done:
        raise SinkError(f"a picture of {bgr.shape[1]}x{bgr.shape[0]} does not fit into {suffix}")
    return bytes(data)


def mask_encoder(card: Card) -> Encode:
    """`frame.labels` as PNG of palette colours: a pixel's value is its class id, its colour the
    class's, as in VOC's own ground truth.
    """
    palette = np.zeros((256, 4), np.uint8)  # FFmpeg's pal8 has one uint32 ARGB a colour
    palette[:, 0] = 255
    palette[:, 1:] = card.colors

    def encode(frame: Frame, suffix: str) -> bytes:
        assert frame.labels is not None
        return encode_palette_png(frame.labels, palette)

    return encode


def encode_palette_png(labels: Image, palette: Image) -> bytes:
    """uint8 (H, W) ids and uint8 (256, 4) ARGB -> an indexed PNG."""
    height, width = labels.shape
    video = av.VideoFrame.from_ndarray((np.ascontiguousarray(labels), palette), "pal8")  # type: ignore[arg-type]
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = width, height, "pal8"
    context.time_base = Fraction(1, 25)  # encoders demand one; a PNG has none
    packets = [*context.encode(video), *context.encode(None)]
    return b"".join(bytes(p) for p in packets)
