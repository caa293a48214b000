"""Cameras without one: what a driver lists is answered by structures of our own."""

import errno
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.sources import open_source

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")
if sys.platform == "linux":
    from pipeline.sources.live import camera
    from pipeline.sources.live.camera import Mode, best_mode, list_modes

WEBCAM = {
    "YUYV": {(480, 640): [(1, 30), (1, 15)], (720, 1280): [(1, 10)], (1080, 1920): [(1, 5)]},
    "MJPG": {(480, 640): [(1, 30)], (720, 1280): [(1, 60), (1, 30)], (1080, 1920): [(1, 30)]},
    "Z16 ": {(480, 640): [(1, 90)]},
}


def driver(formats, stepwise=None):
    """Answers the three requests as a driver does, from {code: {(H, W): [(num, den)]}}."""

    def ioctl(request, data):
        assert data.index < 1000
        codes = {int.from_bytes(c.encode(), "little"): c for c in formats}
        try:
            if request == camera._ENUM_FMT:
                assert data.type == 1
                data.pixelformat = list(codes)[data.index]
            elif request == camera._ENUM_FRAMESIZES:
                if stepwise:
                    data.type, data.values[:] = 3, stepwise
                else:
                    data.type = 1
                    data.values[1], data.values[0] = list(formats[codes[data.pixel_format]])[
                        data.index
                    ]
            elif request == camera._ENUM_FRAMEINTERVALS:
                rates = formats[codes[data.pixel_format]]
                rates = rates[None] if stepwise else rates[data.height, data.width]
                data.type = 3 if stepwise else 1
                data.values[0], data.values[1] = rates[data.index]
        except IndexError:
            raise OSError(errno.EINVAL, "the end of the list") from None

    return ioctl


def test_requests_are_those_of_the_kernel():
    # linux/videodev2.h, as `gcc -E` has them on x86-64 and ARM64.
    assert camera._ENUM_FMT == 0xC0405602
    assert camera._ENUM_FRAMESIZES == 0xC02C564A
    assert camera._ENUM_FRAMEINTERVALS == 0xC034564B


def test_a_webcam_lists_its_modes():
    modes = list_modes(driver(WEBCAM))
    assert len(modes) == 8
    assert Mode("mjpeg", 720, 1280, Fraction(60)) in modes
    assert Mode("yuyv422", 1080, 1920, Fraction(5)) in modes
    assert {m.pixel_format for m in modes} == {"yuyv422", "mjpeg"}  # depth is no picture


def test_a_camera_of_any_size_is_asked_for_the_usual_ones():
    modes = list_modes(driver({"NV12": {None: [(1, 30)]}}, stepwise=(32, 1920, 2, 32, 1080, 2)))
    assert {(m.height, m.width) for m in modes} == {
        (240, 320),
        (480, 640),
        (720, 1280),
        (1080, 1920),
    }


@pytest.mark.parametrize(
    ("size", "fps", "expected"),
    [
        (None, None, "mjpeg 1920x1080 at 30 fps"),  # the largest that reaches 30
        ((720, 1280), None, "mjpeg 1280x720 at 30 fps"),  # raw would give 10
        ((720, 1280), 50, "mjpeg 1280x720 at 60 fps"),
        ((720, 1280), 10, "yuyv422 1280x720 at 10 fps"),
        ((480, 640), None, "yuyv422 640x480 at 30 fps"),  # as fast, and needs no decoding
        ((480, 640), 60, "yuyv422 640x480 at 30 fps"),  # nothing is faster
        (None, 60, "mjpeg 1280x720 at 60 fps"),
        (None, 5, "yuyv422 1920x1080 at 5 fps"),
    ],
)
def test_the_mode_that_gives_what_is_asked(size, fps, expected):
    assert str(best_mode(list_modes(driver(WEBCAM)), size, fps)) == expected


def test_a_size_that_it_has_not_names_those_it_has():
    with pytest.raises(ValueError, match="may be 480x640, 720x1280, 1080x1920"):
        best_mode(list_modes(driver(WEBCAM)), (100, 100), None)


modes = st.lists(
    st.builds(
        lambda f, s, r: Mode(f, *s, r),
        st.sampled_from(["yuyv422", "mjpeg", "nv12", "h264"]),
        st.sampled_from([(240, 320), (480, 640), (720, 1280), (1080, 1920), (2160, 3840)]),
        st.fractions(1, 240, max_denominator=1001),
    ),
    min_size=1,
    max_size=30,
)


@given(modes, st.one_of(st.none(), st.floats(1, 240)), st.booleans())
def test_no_mode_of_the_size_serves_the_rate_better(listed, fps, sized):
    size = (listed[0].height, listed[0].width) if sized else None
    mode = best_mode(listed, size, fps)
    assert mode in listed
    same = [m for m in listed if size in (None, (m.height, m.width))]
    assert mode in same
    wanted = fps or 30
    if mode.fps < wanted * 0.97:
        assert mode.fps == max(m.fps for m in same)
    else:
        cheaper = [
            m for m in same
            if (m.height, m.width) == (mode.height, mode.width)
            and wanted * 0.97 <= m.fps < mode.fps
        ]  # fmt: skip
        assert not cheaper


def test_a_camera_that_is_not_there():
    with pytest.raises(SourceError, match="there is no such camera"):
        open_source("/dev/video97")
    with pytest.raises(SourceError, match="camera 97 cannot be opened"):
        open_source("97")


def test_what_is_no_camera():
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        camera.read_modes("/dev/null")


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.EBUSY, "another program"), (errno.EACCES, "group video"), (errno.ENOTTY, "no camera")],
)
def test_errors_of_cameras_say_what_to_do(monkeypatch, number, says):
    def fails(path):
        raise OSError(number, "as told")

    monkeypatch.setattr(camera, "read_modes", fails)
    with pytest.raises(SourceError, match=says):
        open_source("0")


def test_what_ffmpeg_is_asked_for_is_said(monkeypatch):
    monkeypatch.setattr(camera, "read_modes", lambda path: list_modes(driver(WEBCAM)))
    said = []
    address = camera.Address("camera", "/dev/video0", "camera 0")
    options = camera.choose_mode(address, (720, 1280), 30, said.append)
    assert options == {"input_format": "mjpeg", "video_size": "1280x720", "framerate": "30"}
    assert said == ["camera  /dev/video0: mjpeg 1280x720 at 30 fps"]
    camera.choose_mode(address, (480, 640), 60, said.append)
    assert "slower than the 60 asked for" in said[-1]
