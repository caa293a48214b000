"""A video in, an overlay out: streamseg beside what the cores could do at best.

    python -m benchmarks.video VIDEO [--rounds 5] [--frames 289] [--json FILE]

Three figures, taken in turns so that a slow moment of the machine meets all alike, each in a
process of its own; one during which other programs took more than 5 % of the cores is taken again:

- `streamseg`: the command's own pipeline to an H.264 overlay. Frames a second from the first frame
  read to the closed file; loading the network is not counted, here or below. `busy` is the share of
  the cores' time that it was at work: what is missing to 1 is all that another schedule of the same
  work could gain.
- `limit, parts alone`: cores / (CPU seconds that decode, preprocess, infer, colorize and encode
  each take a frame), each measured while nothing else runs. No run of parts side by side gets there
  if they share caches, memory or, as virtual cores may, a physical core: it then takes longer.
- `limit, parts beside the network`: the same, but while a part is measured on one core, another
  process runs the network on all others, as is nearly always so in the pipeline. The network itself
  is measured as it runs there, on all cores. Where there is one core, or a process cannot be bound
  to cores (it needs Linux), there is no such figure.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import describe, undisturbed
from engines.choose import load_engine
from engines.cores import available_cores
from pipeline import Frame, Pipeline, open_source
from pipeline.api import stages_for
from pipeline.sinks import VideoSink
from pipeline.stages import Look
from pipeline.stages.colorize import Painter
from pipeline.stages.geometry import LabelScaler, to_network

_KEPT = 48
STREAMSEG, ALONE, BESIDE = "streamseg", "limit, parts alone", "limit, parts beside the network"
NEIGHBOUR = "neighbour"


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
        used = time.process_time() - cpu
        return {
            "fps": n / wall,
            "cpu_ms": 1000 * used / n,
            "busy": used / wall / available_cores(),
            "precision": engine.info.precision,
        }


def run_neighbour() -> None:
    """Runs the network on all cores but the first until standard input ends."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[1:])
    with load_engine() as engine:
        _warm(engine)
        print("at work", flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            _warm(engine)


@contextmanager
def beside_the_network() -> Iterator[None]:
    """Puts the calling thread on the first core and the network on all others."""
    allowed = os.sched_getaffinity(0)
    command = [sys.executable, "-m", "benchmarks.video", "", "--one", NEIGHBOUR]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as neighbour:
        assert neighbour.stdin is not None
        assert neighbour.stdout is not None
        if not neighbour.stdout.readline():
            raise RuntimeError("the network beside the parts has not started")
        os.sched_setaffinity(0, {min(allowed)})
        try:
            yield
            if neighbour.poll() is not None:
                raise RuntimeError("the network beside the parts has ended")
        finally:
            os.sched_setaffinity(0, allowed)
            neighbour.stdin.close()


def run_limit(clip: str, frames: int, around: Callable[[], Any]) -> dict[str, Any]:
    """CPU milliseconds a frame of each part, and the frames a second that the cores allow. Parts
    other than the network are measured in a block of `around`.
    """
    cv2.setNumThreads(1)
    costs: dict[str, float] = {}

    def measure(name: str, work: Callable[[], int]) -> None:
        cpu = time.process_time()
        count = work()
        costs[name] = 1000 * (time.process_time() - cpu) / count

    def decode() -> int:
        return sum(1 for _ in open_source(clip, max_frames=frames).frames())

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

        prepare()
        measure("infer", network)
        with around():
            for name, work in (
                ("decode", decode), ("preprocess", prepare), ("colorize", paint), ("encode", encode)
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


def answer(command: list[str]) -> dict[str, Any]:
    """What a process of ours prints, once it has ended."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


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
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one == NEIGHBOUR:
        run_neighbour()
        return
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        STREAMSEG: lambda: run_streamseg(args.clip, args.frames),
        ALONE: lambda: run_limit(args.clip, args.frames, nullcontext),
    }
    if hasattr(os, "sched_setaffinity") and available_cores() > 1:
        kinds[BESIDE] = lambda: run_limit(args.clip, args.frames, beside_the_network)
    if args.one:
        print(json.dumps(kinds[args.one]()))
        return
    rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for number in range(args.rounds):
        for kind, rows in rounds.items():
            command = [sys.executable, "-m", "benchmarks.video", args.clip, "--one", kind]
            command += ["--frames", str(args.frames)]
            rows.append(undisturbed(partial(answer, command)))
            print(f"round {number + 1} {kind}: {rows[-1]}", flush=True)
    keys = {kind: [k for k in ("fps", "cpu_ms", "busy") if k in rounds[kind][0]] for kind in kinds}
    medians = {
        kind: {key: round(statistics.median(r[key] for r in rows), 3) for key in keys[kind]}
        for kind, rows in rounds.items()
    }
    ratios = {
        f"{STREAMSEG} / {kind}": [
            round(a["fps"] / b["fps"], 3) for a, b in zip(rounds[STREAMSEG], rows, strict=True)
        ]
        for kind, rows in rounds.items()
        if kind != STREAMSEG
    }
    for kind, values in medians.items():
        print(f"{kind}: medians {values}")
    for name, shares in ratios.items():
        spread = f"{min(shares):.3f} .. {max(shares):.3f}"
        print(f"{name}: median of the rounds {statistics.median(shares):.3f} ({spread})")
    if args.json:
        summary = {
            **describe(),
            "medians": medians,
            "median_ratios": {name: statistics.median(v) for name, v in ratios.items()},
            "ratios": ratios,
            "rounds": rounds,
        }
        args.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
