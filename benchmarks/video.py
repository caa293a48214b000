"""A video in, an overlay out: streamseg beside what the cores could do at best.

    python -m benchmarks.video VIDEO [--rounds 9] [--frames 200] [--json FILE]

Two figures, taken in turns with one loaded network, each round in the other order than the one
before, so that a slow moment of the machine meets both alike; a turn during which other programs
took more than 5 % of the cores is taken again:

- `streamseg`: the command's own pipeline to an H.264 overlay. Frames a second from the first frame
  read to the closed file. `busy` is the share of the cores' time that it was at work: what is
  missing to 1 is all that another schedule of the same work could gain.
- `limit`: cores / (CPU seconds that decode, preprocess, infer, colorize and encode each take a
  frame), each measured while nothing else runs. No run of parts side by side gets there if they
  share caches, memory or, as virtual cores may, a physical core: it then takes longer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from benchmarks.machine import describe, undisturbed
from engines.choose import load_engine
from engines.cores import available_cores
from engines.engine import Engine
from pipeline import Frame, Pipeline, open_source
from pipeline.api import stages_for
from pipeline.sinks import VideoSink
from pipeline.stages import Look
from pipeline.stages.colorize import Painter
from pipeline.stages.geometry import LabelScaler, to_network
from tools.bench.measure import warm_up

_KEPT = 48


def run_streamseg(engine: Engine, clip: str, frames: int) -> dict[str, float]:
    """Frames a second of the whole pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(clip, max_frames=frames)
        sink = VideoSink(Path(folder) / "out.mp4", source.info, encoder="libx264")
        begun, cpu = time.perf_counter(), time.process_time()
        pipeline = Pipeline(source, stages_for(engine), [sink])
        pipeline.run()
        wall, used = time.perf_counter() - begun, time.process_time() - cpu
        n = pipeline.ledger.delivered
        return {"fps": n / wall, "cpu_ms": 1000 * used / n, "busy": used / wall / available_cores()}


def run_limit(engine: Engine, clip: str, frames: int) -> dict[str, Any]:
    """CPU milliseconds a frame of each part, and the frames a second that the cores allow."""
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
    with tempfile.TemporaryDirectory() as folder:
        want = engine.card.input
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

        measure("decode", decode)
        measure("preprocess", prepare)
        measure("infer", network)
        measure("colorize", paint)
        measure("encode", encode)
    total = sum(costs.values())
    rounded = {name: round(ms, 2) for name, ms in costs.items()}
    return {"fps": 1000 * available_cores() / total, "cpu_ms": total, "parts_ms": rounded}


def renumbered(frames: list[Frame], step: int) -> Iterator[Frame]:
    """The frames one after the other, `step` units of time apart."""
    for i, frame in enumerate(frames):
        again = copy(frame)
        again.pts = i * step
        yield again


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clip")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rounds: dict[str, list[dict[str, Any]]] = {"streamseg": [], "limit": []}
    with load_engine() as engine:
        precision = engine.info.precision
        kinds: dict[str, Callable[[], dict[str, Any]]] = {
            "streamseg": partial(run_streamseg, engine, args.clip, args.frames),
            "limit": partial(run_limit, engine, args.clip, args.frames),
        }
        warm_up(engine)
        for number in range(args.rounds):
            for kind in list(kinds)[:: -1 if number % 2 else 1]:
                rounds[kind].append(undisturbed(kinds[kind]))
                print(f"round {number + 1} {kind}: {rounds[kind][-1]}", flush=True)
    medians = {
        kind: {
            key: round(statistics.median(r[key] for r in rows), 3)
            for key in ("fps", "cpu_ms", "busy")
            if key in rows[0]
        }
        for kind, rows in rounds.items()
    }
    pairs = list(zip(rounds["streamseg"], rounds["limit"], strict=True))
    shares = {
        "frames a second": [round(a["fps"] / b["fps"], 3) for a, b in pairs],
        "CPU a frame": [round(b["cpu_ms"] / a["cpu_ms"], 3) for a, b in pairs],
    }
    for kind, values in medians.items():
        print(f"{kind}: medians {values}")
    for name, values in shares.items():
        spread = f"{min(values):.3f} .. {max(values):.3f}"
        print(f"share of the limit, {name}: median {statistics.median(values):.3f} ({spread})")
    if args.json:
        summary = {
            **describe(),
            "precision": precision,
            "medians": medians,
            "share_of_the_limit": {name: statistics.median(v) for name, v in shares.items()},
            "shares": shares,
            "rounds": rounds,
        }
        args.json.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
