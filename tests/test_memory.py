"""Memory does not grow with the length of a video, and stays small at 720p."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engines.choose import load_engine
from engines.model import find_model
from pipeline.runner import Pipeline
from pipeline.sinks import StatisticsSink, open_mask, open_output
from pipeline.sources import SyntheticSource, open_source
from pipeline.stages import Look, colorize, infer, preprocess

pytestmark = pytest.mark.slow

FRAMES = 10_000


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_clip(path: Path, height: int, width: int, count: int) -> Path:
    """A synthetic clip, written a frame at a time: the test's own memory must not hide a leak."""
    source = SyntheticSource(height, width, count)
    sink = open_output(path, source)
    for frame in sink.run(replace(f, picture=f.image) for f in source.frames()):
        del frame
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(400)
def test_memory_is_flat_over_ten_thousand_frames(tmp_path: Path) -> None:
    """Every part is the real one; picture and network are small, so that it takes a minute."""
    clip = write_clip(tmp_path / "long.mp4", 108, 192, FRAMES)
    model = find_model("voc")
    small = model.card.input.model_copy(update={"height": 33, "width": 49})
    model = type(model)(model.card.model_copy(update={"input": small}), model.file)
    source = open_source(clip)
    sinks = [
        open_output(tmp_path / "out.mp4", source),
        open_mask(tmp_path / "mask.mkv", source, model.card),
        StatisticsSink(tmp_path / "stats.jsonl", model.card.classes, rle=True),
    ]
    seen: list[float] = []
    with load_engine(model) as engine:
        look = Look(legend=True, contours=True)
        stages = [preprocess(engine.card), infer(engine), colorize(engine.card, look)]
        pipeline = Pipeline(source, stages, sinks)
        pipeline.run(lambda f: seen.append(resident_mb()) if f.index % 500 == 0 else None)
    assert pipeline.ledger.delivered == FRAMES
    settled = seen[len(seen) // 4]
    # The index of an MP4 and of a Matroska file grows with it: some 20 bytes a frame and stream.
    assert max(seen[len(seen) // 4 :]) - settled < 20, [round(mb) for mb in seen]


@pytest.mark.timeout(300)
def test_a_720p_run_takes_less_than_600_mb(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "hd.mp4", 720, 1280, 150)
    # By way of a small process: a child's peak begins with what its parent had.
    helper = "import os, subprocess, sys; child = subprocess.Popen(sys.argv[1:]);"
    helper += "_, status, usage = os.wait4(child.pid, 0); print(status, usage.ru_maxrss)"
    command = [sys.executable, "-m", "tools.cli", "run", str(clip), "-o", str(tmp_path / "o.mp4")]
    done = subprocess.run(
        [sys.executable, "-c", helper, *command, "--legend", "--contours", "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    )
    status, peak = (int(word) for word in done.stdout.split())
    assert status == 0
    unit = 1e6 if sys.platform == "darwin" else 1e3  # ru_maxrss: bytes there, kilobytes here
    assert peak / unit < 600
