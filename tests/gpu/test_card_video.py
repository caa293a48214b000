"""Decoding and encoding on a real card: `make test-gpu`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.choose import is_installed, load_engine
from engines.cuda.device import open_device
from pipeline.api import stages_for
from pipeline.card_planes import CardPlanes, has_card_frames
from pipeline.planes import Planes
from pipeline.runner import Pipeline
from pipeline.sinks import VideoSink
from pipeline.sinks.encoder import choose_encoder
from pipeline.sources import SyntheticSource
from pipeline.sources.file import FileSource
from pipeline.stages import Look
from tests.clips import Tone, needs_encoder, packets, set_display_matrix, times, write_clip

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
if "STREAMSEG_GPU" not in os.environ:
    pytest.skip("needs a GPU: make test-gpu", allow_module_level=True)
if not has_card_frames():
    pytest.skip("needs PyAV 18", allow_module_level=True)
PICTURES = sorted((Path(__file__).parents[2] / "engines" / "guard_frames").glob("*.jpg"))
# 1080 is no multiple of 16: what is coded, and lies in memory, is 1088 high.
SIZE = (1080, 1920)


def has_nvenc():
    return choose_encoder(".mp4").name == "h264_nvenc"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    rgb = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in PICTURES]
    pictures = [cv2.resize(rgb[n // 10], SIZE[::-1]) for n in range(10 * len(rgb))]
    moved = [np.ascontiguousarray(np.roll(p, 8 * n, axis=1)) for n, p in enumerate(pictures)]
    options = {"preset": "veryfast", "crf": "20", "bf": "2"}
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    pts = [2 * n + n % 2 for n in range(len(moved))]  # a variable rate
    return write_clip(path, pictures=moved, options=options, rate=50, pts=pts, audio=[Tone()])


@pytest.fixture(scope="module", params=["tensorrt", "torch"])
def engine(request):
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    with load_engine("voc", engine=request.param) as loaded:
        yield loaded


@pytest.fixture
def downloads(monkeypatch):
    """Pictures that came down from the card."""
    seen, real = [], CardPlanes.host.fget

    def host(self):
        if self._host is None:
            seen.append(self)
        return real(self)

    monkeypatch.setattr(CardPlanes, "host", property(host))
    return seen


def off(one, two):
    return max(
        int(np.abs(a.astype(int) - b).max())
        for a, b in ((one.y, two.y), (one.u, two.u), (one.v, two.v))
    )


@pytest.mark.parametrize("start_s", [0.0, 0.7])
def test_frames_and_times_are_the_processors(clip, start_s):
    said = []
    source = FileSource(clip, start_s=start_s, decode_on=0, say=said.append)
    count = 0
    for mine, theirs in zip(
        source.frames(), FileSource(clip, start_s=start_s).frames(), strict=True
    ):
        assert isinstance(mine.held_image, CardPlanes)
        assert mine.held_image.gpu == 0
        assert (mine.pts, mine.duration) == (theirs.pts, theirs.duration)
        assert mine.held_image.matrix == theirs.held_image.matrix
        assert off(mine.held_image, theirs.held_image) <= 2
        count += 1
    assert count > 20
    assert not said
    assert source.lost == {}


@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "mpeg2video"])
def test_other_codecs(tmp_path, codec):
    needs_encoder(codec)
    path, said = write_clip(tmp_path / "clip.mkv", size=(272, 480), codec=codec), []
    source = FileSource(path, decode_on=0, say=said.append)
    for mine, theirs in zip(source.frames(), FileSource(path).frames(), strict=True):
        assert mine.pts == theirs.pts
        assert off(mine.held_image, theirs.held_image) <= 2
    print(codec, said or "on the GPU")


def test_an_engine_that_was_there_first_shares_its_context(clip):
    """FFmpeg refuses a primary context whose threads spin (hwcontext_cuda.c)."""
    with open_device().current():
        import pycuda.driver as cuda

        memory = cuda.mem_alloc(1 << 20)
        assert len(list(FileSource(clip, decode_on=0, max_frames=5).frames())) == 5
        memory.free()


def test_what_does_not_stay_there_is_said(tmp_path):
    deep = write_clip(tmp_path / "deep.mkv", size=(272, 480), codec="libx264", pix_fmt="yuv420p10")
    turned = write_clip(tmp_path / "turned.mp4", size=(272, 480))
    set_display_matrix(turned, 0, 1, -1, 0)
    for path in (deep, turned):
        said = []
        source = FileSource(path, decode_on=0, say=said.append)
        for mine, theirs in zip(source.frames(), FileSource(path).frames(), strict=True):
            assert (mine.image == theirs.image).all()
        assert len(said) == 1
        assert "is decoded by the processor" in said[0]


def test_a_thousand_frames_without_growth(tmp_path):
    import pycuda.driver as cuda

    info = SyntheticSource(360, 640, 1000)
    path = tmp_path / "long.mp4"

    def frames():
        for frame in info.frames():
            frame.picture = frame.held_image
            yield frame

    for _ in VideoSink(path, info.info, encoder="libx264").run(frames()):
        pass

    def used():
        with open_device().current():
            free, total = cuda.mem_get_info()
        with open("/proc/self/statm") as file:
            return total - free, int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = (0, 0)
    for frame in FileSource(path, decode_on=0).frames():
        assert isinstance(frame.held_image, CardPlanes)
        if frame.index == 100:
            before = used()
    after = used()
    assert frame.index == 999
    assert after[0] <= before[0] + (8 << 20)
    assert after[1] <= before[1] + (8 << 20)


def test_the_lane_paints_what_lies_there_as_what_was_sent_up(clip, engine):
    stages = [stages_for(engine, Look()) for _ in range(2)]
    with (
        Pipeline(FileSource(clip, decode_on=0), stages[0]) as one,
        Pipeline(FileSource(clip), stages[1]) as two,
    ):
        for mine, theirs in zip(one, two, strict=True):
            assert (mine.labels == theirs.labels).mean() > 0.999
            assert not isinstance(mine.held_picture, CardPlanes)
            assert off(mine.held_picture, theirs.held_picture) <= 2 or (
                (mine.labels != theirs.labels).any()
            )


def test_from_decoder_to_encoder_nothing_comes_down(tmp_path, clip, engine, downloads):
    if not has_nvenc():
        pytest.skip("this card has no NVENC, or its driver is too old")
    paths = [tmp_path / "card.mp4", tmp_path / "host.mp4"]
    for path, gpu in zip(paths, (0, None), strict=True):
        source = FileSource(clip, decode_on=gpu)
        sink = VideoSink(path, source.info, encoder="h264_nvenc")
        sink.audio = source.tap_audio()
        stages = stages_for(engine, Look(), labels=False, stay=gpu is not None)
        Pipeline(source, stages, [sink]).run()
    assert not downloads
    assert times(paths[0]) == times(paths[1]) == times(clip)
    assert [p.size for p in packets(paths[0], "audio")] == [p.size for p in packets(clip, "audio")]
    for one, two in zip(*(FileSource(path).frames() for path in paths), strict=True):
        assert isinstance(one.held_image, Planes)
        error = one.held_image.y.astype(float) - two.held_image.y
        assert 10 * np.log10(255**2 / max(1e-9, (error**2).mean())) > 35


def test_the_program_says_where_pictures_come_down(tmp_path, clip, engine):
    out = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "tools.cli", "run", str(clip), "-o", str(out)]
    command += ["--decoder", "cuda", "--engine", engine.info.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    print(done.stderr)
    assert done.returncode == 0
    assert "decoded on GPU 0" in done.stderr
    assert ("pictures come down from the GPU" in done.stderr) != has_nvenc()
    assert times(out) == times(clip)
