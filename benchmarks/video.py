"""A video in, an overlay out: streamseg beside what the cores could do at best.

    python -m benchmarks.video VIDEO [--rounds 5] [--frames 289] [--json FILE]

Two figures, taken in turns so that a slow moment of the machine meets all alike, each in a
process of its own:

- `streamseg`: the command's own pipeline to an H.264 overlay. Frames a second from the first frame
  read to the closed file; loading the network is not counted, here or below.
- `limit`: cores / (CPU seconds that decode, preprocess, infer, colorize and encode each take a
  frame, each measured alone). No schedule of the same work on the same cores can be faster, save
  that work done side by side shares caches differently than alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import copy
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import describe
from engines.choose import load_engine
from engines.cores import available_cores
from pipeline import Frame, Pipeline, open_source
from pipeline.api import stages_for
from pipeline.sinks import VideoSink
from pipeline.stages import Look
from pipeline.stages.colorize import Painter
from pipeline.stages.geometry import LabelScaler, to_network

_KEPT = 48
KINDS = ("streamseg", "limit")


def run_streamseg(clip: str, frames: int) -> dict[str, Any]:
    """Frames a second of the whole pipeline."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, load_engine() as engine:
        _warm(engine)
        source = open_source(clip, max_frames=frames)
        sink = VideoSink(Path(folder) / "out.mp4", source.info, encoder="libx264")
        begun, cpu = time.perf_counter(), time.process_time()
        pipeline = Pipeline(source, stages_for(engine), [sink])
        pipeline.run()
        wall = time.perf_counter() - begun
        n = pipeline.ledger.delivered
        used = (time.process_time() - cpu) / n
        return {"fps": n / wall, "cpu_ms": 1000 * used, "precision": engine.info.precision}


def run_limit(clip: str, frames: int) -> dict[str, Any]:
    """CPU milliseconds a frame of each part alone, and the frames a second that the cores allow."""
    cv2.setNumThreads(1)
    costs: dict[str, float] = {}

    def measure(name: str, work: Callable[[], int]) -> None:
        cpu = time.process_time()
        count = work()
        costs[name] = 1000 * (time.process_time() - cpu) / count

    def decode() -> int:
        return sum(1 for _ in open_source(clip, max_frames=frames).frames())

    measure("decode", decode)
    # The other parts go to and fro over a few frames: keeping them all would measure the cost of
    # fresh memory, and jumping back to the first would cost the encoder a scene change.
    kept = list(open_source(clip, max_frames=min(frames, _KEPT)).frames())
    order = [*range(len(kept)), *reversed(range(1, len(kept) - 1))]
    turns = [kept[order[i % len(order)]] for i in range(frames)]
    with load_engine() as engine, tempfile.TemporaryDirectory() as folder:
        want = engine.card.input
        _warm(engine)
        answers: dict[int, Any] = {}

        def prepare() -> int:
            for frame in turns:
                frame.tensor = to_network(frame.held_image, want)
            return len(turns)

        def network() -> int:
            flying: list[Any] = []
            for frame in turns:
                flying.append((frame.index, engine.submit(frame.tensor)))
                if len(flying) == engine.depth:
                    index, pending = flying.pop(0)
                    answers[index] = pending.result()[0]
            answers.update((index, pending.result()[0]) for index, pending in flying)
            return len(turns)

        def paint() -> int:
            scale, painter = LabelScaler(), Painter(engine.card, Look())
            for frame in turns:
                h, w = frame.held_image.shape[:2]
                frame.labels = scale(answers[frame.index], h, w, want)
                frame.picture = painter.paint(frame.held_image, frame.labels)
            return len(turns)

        def encode() -> int:
            with closing(open_source(clip)) as source:
                sink = VideoSink(Path(folder) / "out.mp4", source.info, encoder="libx264")
                step = round(1 / (source.info.rate * source.info.time_base))
                return sum(1 for _ in sink.run(renumbered(turns, step)))

        for name, work in (
            ("preprocess", prepare), ("infer", network), ("colorize", paint), ("encode", encode),
        ):  # fmt: skip
            measure(name, work)
    total = sum(costs.values())
    rounded = {name: round(ms, 2) for name, ms in costs.items()}
    return {"fps": 1000 * available_cores() / total, "cpu_ms": total, "parts_ms": rounded}


def renumbered(frames: list[Frame], step: int) -> Iterator[Frame]:
    """The frames one after the other, `step` units of time apart."""
    for i, frame in enumerate(frames):
        again = copy(frame)
        again.pts = i * step
        yield again


def _warm(engine: Any) -> None:
    blank = np.zeros((1, engine.card.input.height, engine.card.input.width, 3), np.uint8)
    for pending in [engine.submit(blank) for _ in range(2 * engine.depth)]:
        pending.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=289)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run = {"streamseg": run_streamseg, "limit": run_limit}
        print(json.dumps(run[args.one](args.clip, args.frames)))
        return
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for number in range(args.rounds):
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.video", args.clip, "--one", kind]
            command += ["--frames", str(args.frames)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[kind].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1} {kind}: {results[kind][-1]}", flush=True)
    median = {k: statistics.median(r["fps"] for r in rows) for k, rows in results.items()}
    ratios = {
        "streamseg / limit": [
            a["fps"] / b["fps"] for a, b in zip(results["streamseg"], results["limit"], strict=True)
        ],
    }
    print(f"median fps: { {k: round(v, 2) for k, v in median.items()} }")
    for name, values in ratios.items():
        spread = f"{min(values):.3f} .. {max(values):.3f}"
        print(f"{name}: median of the rounds {statistics.median(values):.3f} ({spread})")
    if args.json:
        summary = {
            **describe(),
            "median_fps": median,
            "median_ratio": {name: statistics.median(v) for name, v in ratios.items()},
            "rounds": results,
        }
        args.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
