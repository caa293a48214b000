"""USB cameras on Linux (V4L2): what they can do, and which of it to ask for."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pipeline.errors import SourceError
from pipeline.sources.live.address import Address
from pipeline.sources.live.trouble import explain

_WANTED_FPS = 30.0
# A camera that is asked for 30 and says 29.97 gives what was asked.
_NEAR = 0.97

# FFmpeg's names (libavdevice/v4l2-common.c) of what V4L2 calls by four characters. First the ones
# that cost least to read where several give the rate: raw needs no decoding.
_FORMATS = {
    "YUYV": "yuyv422",
    "NV12": "nv12",
    "YU12": "yuv420p",
    "UYVY": "uyvy422",
    "YV12": "yuv420p",
    "RGB3": "rgb24",
    "BGR3": "bgr24",
    "GREY": "gray",
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "H264": "h264",
}


@dataclass(frozen=True)
class Mode:
    """One thing that a camera can do."""

    pixel_format: str
    """FFmpeg's name."""
    height: int
    width: int
    fps: Fraction
    """Frames a second, as the driver states them."""

    def __str__(self) -> str:
        return f"{self.pixel_format} {self.width}x{self.height} at {float(self.fps):g} fps"


def choose_mode(
    address: Address,
    size: tuple[int, int] | None,
    fps: float | None,
    say: Callable[[str], None],
) -> dict[str, str]:
    """FFmpeg's options for the camera's best mode, which is told. Raises SourceError."""
    if sys.platform != "linux":
        raise SourceError(f"{address.shown}: cameras are read on Linux only; give a stream's URL")
    try:
        modes = read_modes(address.url)
    except OSError as error:
        there = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
        raise SourceError(
            f"{address.shown} cannot be opened: {explain(error, address).text} (here: {there})"
        ) from None
    if not modes:
        return {}  # a driver that lists nothing (loopback): FFmpeg takes what it gives
    try:
        mode = best_mode(modes, size, fps)
    except ValueError as error:
        raise SourceError(f"{address.shown}: {error}") from None
    wanted = fps or _WANTED_FPS
    slow = "" if mode.fps >= wanted * _NEAR else f" (slower than the {wanted:g} asked for)"
    say(f"camera  {address.url}: {mode}{slow if fps is not None else ''}")
    return {
        "input_format": mode.pixel_format,
        "video_size": f"{mode.width}x{mode.height}",
        "framerate": str(mode.fps),
    }


def best_mode(modes: Sequence[Mode], size: tuple[int, int] | None, fps: float | None) -> Mode:
    """The mode to ask for, of a size (H, W) and a rate that are wanted, if they are.

    A size must be met. Without one it is the largest of those that reach the rate, up to 1080
    lines: more serves no network. A rate that no mode of the size reaches gives the fastest. Among
    equals it is the rate nearest above, then what is cheapest to read. Raises ValueError.
    """
    if size is not None:
        sizes = sorted({(m.height, m.width) for m in modes})
        modes = [m for m in modes if (m.height, m.width) == size]
        if not modes:
            listed = ", ".join(f"{h}x{w}" for h, w in sizes)
            raise ValueError(f"no mode of {size[0]}x{size[1]}; --camera-size may be {listed}")
    wanted = fps or _WANTED_FPS
    quick = [m for m in modes if m.fps >= wanted * _NEAR]
    if not quick:
        fastest = max(m.fps for m in modes)
        quick, wanted = [m for m in modes if m.fps == fastest], float(fastest)
    small = [m for m in quick if m.height <= 1080]
    if small:
        largest = max(m.height * m.width for m in small)
        quick = [m for m in small if m.height * m.width == largest]
    else:
        least = min(m.height * m.width for m in quick)
        quick = [m for m in quick if m.height * m.width == least]
    cost = list(dict.fromkeys(_FORMATS.values()))
    return min(quick, key=lambda m: (m.fps, cost.index(m.pixel_format)))


# linux/videodev2.h. The structures have the same layout on all machines: 32-bit fields only.


class _FormatDescription(ctypes.Structure):
    """struct v4l2_fmtdesc."""

    _fields_ = (
        ("index", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("description", ctypes.c_char * 32),
        ("pixelformat", ctypes.c_uint32),
        ("mbus_code", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    )


class _FrameSize(ctypes.Structure):
    """struct v4l2_frmsizeenum; of the union's six numbers a discrete size has two, (width, height),
    a stepwise one all, (least, greatest, step) of the width and then of the height.
    """

    _fields_ = (
        ("index", ctypes.c_uint32),
        ("pixel_format", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("values", ctypes.c_uint32 * 6),
        ("reserved", ctypes.c_uint32 * 2),
    )


class _FrameInterval(ctypes.Structure):
    """struct v4l2_frmivalenum; of the union's six numbers a discrete interval has two, (numerator,
    denominator), a stepwise one those of the least, the greatest and the step.
    """

    _fields_ = (
        ("index", ctypes.c_uint32),
        ("pixel_format", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("values", ctypes.c_uint32 * 6),
        ("reserved", ctypes.c_uint32 * 2),
    )


def _request(number: int, structure: type[ctypes.Structure]) -> int:
    """_IOWR('V', number, structure): asm-generic/ioctl.h, as x86 and ARM have it."""
    return 3 << 30 | ctypes.sizeof(structure) << 16 | ord("V") << 8 | number


_ENUM_FMT = _request(2, _FormatDescription)
_ENUM_FRAMESIZES = _request(74, _FrameSize)
_ENUM_FRAMEINTERVALS = _request(75, _FrameInterval)
_VIDEO_CAPTURE = 1
_DISCRETE = 1

# What is tried of a camera that takes any size between two.
_COMMON_SIZES = ((240, 320), (480, 640), (720, 1280), (1080, 1920), (2160, 3840))

Ioctl = Callable[[int, ctypes.Structure], object]


def read_modes(path: str) -> list[Mode]:
    """Everything that the camera says it can do and FFmpeg can read. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        return list_modes(lambda request, data: fcntl.ioctl(descriptor, request, data))
    finally:
        os.close(descriptor)


def list_modes(ioctl: Ioctl) -> list[Mode]:
    """The modes that a device tells by `ioctl(request, structure)`, which fills the structure in.

    Raises OSError where it is no camera.
    """
    modes = []
    for format_ in _all(ioctl, _ENUM_FMT, lambda i: _FormatDescription(i, _VIDEO_CAPTURE)):
        code = int(format_.pixelformat).to_bytes(4, "little").decode("latin-1")
        if code not in _FORMATS:
            continue
        for height, width in _sizes(ioctl, format_.pixelformat):
            for fps in _rates(ioctl, format_.pixelformat, height, width):
                modes.append(Mode(_FORMATS[code], height, width, fps))
    return modes


def _sizes(ioctl: Ioctl, code: int) -> Iterator[tuple[int, int]]:
    for size in _all(ioctl, _ENUM_FRAMESIZES, lambda i: _FrameSize(i, code)):
        if size.type == _DISCRETE:
            yield size.values[1], size.values[0]
            continue
        min_w, max_w, step_w, min_h, max_h, step_h = size.values
        for h, w in _COMMON_SIZES:
            fits = min_w <= w <= max_w and min_h <= h <= max_h
            if fits and not (w - min_w) % max(1, step_w) and not (h - min_h) % max(1, step_h):
                yield h, w
        return


def _rates(ioctl: Ioctl, code: int, height: int, width: int) -> Iterator[Fraction]:
    def start(index: int) -> _FrameInterval:
        return _FrameInterval(index, code, width, height)

    for interval in _all(ioctl, _ENUM_FRAMEINTERVALS, start):
        numerator, denominator = interval.values[0], interval.values[1]
        if numerator and denominator:  # of a range it is the least, the fastest
            yield Fraction(denominator, numerator)
        if interval.type != _DISCRETE:
            return


def _all(ioctl: Ioctl, request: int, start: Callable[[int], ctypes.Structure]) -> Iterator[Any]:
    """What the device lists, one by one; EINVAL is the end of a list, ENOTTY no list at all."""
    for index in range(1000):
        data = start(index)
        try:
            ioctl(request, data)
        except OSError as error:
            if error.errno == errno.EINVAL or (
                error.errno == errno.ENOTTY and request != _ENUM_FMT
            ):
                return
            raise
        yield data
