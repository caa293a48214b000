"""The program with the GPU lane, on the stand-in for TensorRT and PyCUDA: real clips and files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.tools import program

pytestmark = pytest.mark.timeout(110)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def stream(facts_file, host_nvcc, tmp_path, colours):
    """Runs `streamseg run ... --model colours --engine tensorrt` on the stand-in."""

    def run(*words, model=colours, code=0):
        env = {
            **program.environment(tmp_path / "cache"),
            "PATH": f"{host_nvcc.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        start = [sys.executable, "-m", "tests.engines.tensorrt.program", facts_file, "run"]
        words = [*start, *words, "--model", model, "--engine", "tensorrt", "--precision", "fp32"]
        done = program.call(words, env=env, cwd=tmp_path, timeout=100)
        assert done.code == code, done.err
        return done

    return run


def arrays(path, form="rgb24"):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format=form) for frame in container.decode(video=0)]


def test_a_video_is_painted_on_the_card(stream, clip, env, tmp_path, colours):
    done = stream(clip, "-o", "card.mp4", "--mask", "card.mkv", "--report", "r.json")
    assert done.ledger()["delivered"] == 10
    assert "processor" not in done.err
    assert [row["name"] for row in json.loads((tmp_path / "r.json").read_text())["stages"]][:3] == [
        "capture", "infer", "colorize",
    ]  # fmt: skip
    words = [
        *program.PROGRAM,
        "run",
        clip,
        "-o",
        "cpu.mp4",
        "--mask",
        "cpu.mkv",
        "--model",
        colours,
    ]
    assert program.call(words, env=env, cwd=tmp_path, timeout=100).code == 0
    ours, theirs = (np.stack(arrays(tmp_path / f"{n}.mkv", "gray")) for n in ("card", "cpu"))
    assert (ours == theirs).mean() > 0.995
    ours, theirs = (np.stack(arrays(tmp_path / f"{n}.mp4")) for n in ("card", "cpu"))
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 2


def test_several_sources_are_spread_over_the_cards(stream, media, tmp_path):
    clips = [media / "clip.mp4", media / "numbered.mp4", media / "noise.mkv"]
    done = stream(*clips, "-o", "{name}-out.mp4", "--device", "0,1", "--report", "r.json")
    assert "processor" not in done.err
    runs = json.loads((tmp_path / "r.json").read_text())["runs"]
    assert [run["frames"]["delivered"] for run in runs] == [10, 25, 100]
    assert [run["engine"]["device"].split(" (")[0] for run in runs] == ["GPU 0", "GPU 1", "GPU 0"]
    assert [len(arrays(tmp_path / f"{c.stem}-out.mp4")) for c in clips] == [10, 25, 100]


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("0,1", "--device 0,1 spreads several sources over GPUs"),
        ("7", "there is no GPU 7 here"),
        ("x", "device 'x' is no NVIDIA GPU"),
    ],
)
def test_a_device_that_cannot_be(stream, clip, device, said):
    done = stream(clip, "--device", device, code=1)
    assert said in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("0,0", "each once"),
        ("0,x", "by the numbers of NVIDIA GPUs"),
        ("0,7", "there is no GPU 7 here"),
    ],
)
def test_devices_that_cannot_be(stream, clip, media, device, said):
    done = stream(clip, media / "numbered.mp4", "--device", device, code=1)
    assert said in done.err


def test_what_the_card_does_not_do_is_said_and_done(stream, clip, tmp_path):
    done = stream(clip, "-o", "out.mp4", "--smooth")
    notes = [line for line in done.err.splitlines() if line.startswith("note")]
    assert notes == [
        "note: pictures are resized and painted on the processor: --smooth works there"
    ]
    assert len(arrays(tmp_path / "out.mp4")) == 10


def test_a_folder_of_pictures_of_many_sizes(stream, tmp_path):
    import cv2

    (tmp_path / "in").mkdir()
    sizes = [(48, 64), (48, 64), (31, 53), (120, 90), (48, 64)]
    for i, (height, width) in enumerate(sizes):
        picture = np.full((height, width, 3), (0, 0, 255), np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{i}.png"), picture)
    done = stream("in", "-o", "out", "--overlay", "1", "--legend", "--contours")
    assert done.ledger()["delivered"] == 5
    for i, size in enumerate(sizes):
        out = cv2.imread(str(tmp_path / "out" / f"{i}.png"))
        assert out.shape[:2] == size
        assert out[-1, -1].any()
