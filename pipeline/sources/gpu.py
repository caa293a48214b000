"""Decoding on an NVIDIA card: FFmpeg's NVDEC by PyAV, the pictures left where they are."""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.hwaccel import HWAccel

from pipeline.card_planes import CARD_FORMAT, CARD_SAMPLES, CardPlanes, has_card_frames
from pipeline.errors import SourceError
from pipeline.sources.color import Converter
from pipeline.sources.container import open_file


def open_on_gpu(path: Path, number: int) -> Any:
    """An open av container whose video is decoded by the GPU with CUDA's number, if that can.

    What it cannot, FFmpeg decodes on the processor; `why_not` says so. Raises SourceError for a
    file that cannot be read, and where no GPU can be used at all.
    """
    if not has_card_frames():
        raise SourceError(
            f"decoding on a GPU needs PyAV 18 or newer, and that Python 3.11; this is PyAV "
            f"{av.__version__}"
        )
    open_file(path).close()  # what is wrong with the file has errors of its own
    _let_ffmpeg_share(number)
    # The primary context is the one in which engines have their memory (engines/cuda/device.py).
    accel = HWAccel(
        "cuda",
        device=number,
        allow_software_fallback=True,
        options={"primary_ctx": "1"},
        is_hw_owned=True,
    )
    try:
        return av.open(str(path), "r", hwaccel=accel)
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(
            f"GPU {number} cannot be used to decode {path}: FFmpeg finds no driver or no such GPU "
            f"({error.strerror or error}); `streamseg doctor` says what is there, "
            "--decoder cpu needs none"
        ) from None


def why_not(stream: Any, first: av.VideoFrame) -> str:
    """Why the frames of a stream do not stay on the card, by its first one; empty if they do."""
    codec = stream.codec_context.codec.name
    if not stream.codec_context.is_hwaccel:
        return f"FFmpeg's decoder {codec} does not work on cards"
    if first.format.name != CARD_FORMAT:
        return f"the GPU has no decoder for such {codec}"
    if isinstance(Converter()(first), CardPlanes):
        return ""
    samples = getattr(first.sw_format, "name", "")
    if samples != CARD_SAMPLES:
        return f"only 8-bit 4:2:0 (nv12) stays on the GPU, and this is {samples}"
    return "only what is upright, of limited range and even sides stays on the GPU"


def _let_ffmpeg_share(number: int) -> None:
    """Sets how threads wait in a GPU's primary context: FFmpeg refuses the context of whoever was
    there before it, an engine perhaps, if they do not sleep (libavutil/hwcontext_cuda.c).
    """
    try:
        from cuda.bindings import driver
    except ImportError:
        return  # as good, as long as FFmpeg is the first
    try:
        driver.cuInit(0)
        _, device = driver.cuDeviceGet(number)
        driver.cuDevicePrimaryCtxSetFlags(device, driver.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC)
    except Exception:  # no driver, no such GPU: FFmpeg finds that out, too, and then it is told
        return
