"""Decoding on a GPU where there is none: what is said, and that nothing is lost."""

from __future__ import annotations

import ctypes.util
from types import SimpleNamespace

import av
import pytest
from av.codec.hwaccel import HWAccel

from pipeline.card_planes import has_card_frames
from pipeline.errors import SourceError
from pipeline.sources import open_source
from pipeline.sources.file import FileSource
from pipeline.sources.gpu import why_not
from tests.clips import needs_encoder, write_clip

pytestmark = pytest.mark.timeout(60)
no_driver = pytest.mark.skipif(
    ctypes.util.find_library("cuda") is not None, reason="there is an NVIDIA driver here"
)
pyav_18 = pytest.mark.skipif(not has_card_frames(), reason="needs PyAV 18")


def refusal(path, **more):
    with pytest.raises(SourceError) as caught:
        open_source(path, decode_on=0, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


@no_driver
@pyav_18
def test_without_a_driver_it_is_an_error_that_says_what_to_do(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", count=5)
    message = refusal(path)
    assert "GPU 0 cannot be used to decode" in message
    assert str(path) in message
    assert "--decoder cpu" in message


@pyav_18
def test_a_file_that_cannot_be_read_has_its_own_error(tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "empty.mp4")
    assert "no file or folder at" in refusal(tmp_path / "none.mp4")


def test_what_is_no_video_file_is_refused(tmp_path):
    assert "is live" in refusal("rtsp://localhost:1/x")
    av.VideoFrame(8, 8, "rgb24").save(str(tmp_path / "a.png"))
    assert "is images" in refusal(tmp_path / "a.png")


def test_an_old_pyav_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "__version__", "17.1.0")
    assert "needs PyAV 18 or newer" in refusal(write_clip(tmp_path / "c.mp4", count=5))


@pytest.mark.parametrize(
    ("codec", "suffix", "accel", "word"),
    [
        ("libsvtav1", "mkv", True, "libdav1d does not work on cards"),
        ("ffv1", "mkv", True, "ffv1 does not work on cards"),
        ("libx264", "mp4", False, "does not work on cards"),
    ],
)
def test_what_the_gpu_cannot_decode_the_processor_does_and_it_is_said(
    tmp_path, monkeypatch, codec, suffix, accel, word
):
    """PyAV opens a stream without hardware where its decoder has no form for it; so it does here,
    where the real settings meet such a decoder.
    """
    needs_encoder(codec)
    path, said, opened = write_clip(tmp_path / f"clip.{suffix}", codec=codec), [], []

    def on_gpu(path, number):
        more = {"hwaccel": HWAccel("cuda", device=number, is_hw_owned=True)} if accel else {}
        opened.append(number)
        return av.open(str(path), **more)

    monkeypatch.setattr("pipeline.sources.file.open_on_gpu", on_gpu)
    plain = [(f.pts, f.image.tobytes()) for f in FileSource(path).frames()]
    source = FileSource(path, decode_on=0, say=said.append)
    assert opened == [0]
    assert len(said) == 1
    assert "is decoded by the processor" in said[0]
    assert word in said[0]
    assert source.gpu is None
    assert [(f.pts, f.image.tobytes()) for f in source.frames()] == plain
    assert source.lost == {}


class OnCard:
    """A frame of the host that calls itself a CUDA frame; there is no other way to have one."""

    def __init__(self, frame, samples):
        self._frame = frame
        self.format, self.sw_format = SimpleNamespace(name="cuda"), SimpleNamespace(name=samples)

    def __getattr__(self, name):
        return getattr(self._frame, name)


@pytest.mark.parametrize(
    ("size", "samples", "color_range", "word"),
    [
        ((90, 130), "nv12", 1, ""),
        ((90, 130), "nv12", 0, ""),
        ((90, 130), "p010le", 1, "this is p010le"),
        ((90, 130), "nv12", 2, "limited range"),
        ((91, 130), "nv12", 1, "even sides"),
    ],
)
def test_what_stays_on_the_gpu(size, samples, color_range, word, monkeypatch):
    # Conversion of what does not stay begins with a download, which a frame of the host has not.
    monkeypatch.setattr("pipeline.sources.color.to_rgb", lambda *given: None)
    monkeypatch.setattr("pipeline.sources.color.upright", lambda image, turn: image)
    frame = av.VideoFrame(size[1], size[0], "nv12")
    frame.color_range = color_range
    codec = SimpleNamespace(name="h264")
    stream = SimpleNamespace(codec_context=SimpleNamespace(is_hwaccel=True, codec=codec))
    why = why_not(stream, OnCard(frame, samples))
    assert (word in why) if word else not why
    assert "no decoder for such h264" in why_not(stream, frame)
