"""`--decoder cuda`: what is said before and instead of a run."""

from __future__ import annotations

import ctypes.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.fake_engine import FakeEngine, fake_card
from pipeline.card_planes import has_card_frames
from pipeline.sinks import MaskVideoSink, VideoSink
from pipeline.sources import SyntheticSource
from pipeline.stages import Controls, Look
from tests.tools import program
from tools.config import RunConfig
from tools.job import Job, announce_source, connect

pytestmark = pytest.mark.timeout(60)


@pytest.mark.skipif(
    ctypes.util.find_library("cuda") is not None, reason="there is an NVIDIA driver here"
)
def test_without_a_gpu_it_fails_with_one_line(tmp_path, clip, env):
    words = ["run", clip, "--decoder", "cuda", "-o", "out.mp4"]
    done = program.call([*program.PROGRAM, *words], env=env, cwd=tmp_path, timeout=50)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert ("GPU 0 cannot be used" in done.err) or not has_card_frames()
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("gpu", [None, 0])
@pytest.mark.parametrize("sinks", ["none", "mask", "video"])
def test_where_pictures_come_down_it_is_said(tmp_path, gpu, sinks):
    said: list[str] = []
    source = SyntheticSource(36, 64, 3)
    source.gpu = gpu
    made = {
        "none": [],
        "mask": [MaskVideoSink(tmp_path / "m.mkv", source.info)],
        "video": [VideoSink(tmp_path / "v.mp4", source.info, encoder="libx264")],
    }[sinks]
    ask = RunConfig(source=["x.mp4"], decoder="cpu" if gpu is None else "cuda")
    job = Job(ask, SimpleNamespace(note=said.append), source, made)
    announce_source(job)
    with FakeEngine(fake_card(18, 32)) as engine:
        connect(job, engine, Controls(Look()))
    assert ("decoded on GPU 0" in said[0]) == (gpu is not None)
    assert len(said) == 1 + (gpu is not None and sinks != "none")
    assert all("come down from the GPU" in line for line in said[1:])
    assert not list(Path(tmp_path).iterdir())
