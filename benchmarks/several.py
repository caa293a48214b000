"""What sharing one engine costs: four sources beside one, and four beside a fifth that stalls.

    python -m benchmarks.several VIDEO [--model voc] [--frames 240] [--rounds 5] [--json FILE]

Each round, in turns: one source of so many frames; four sources, on the same engine, of a quarter
of them each; the same four beside one more that gives a frame and then nothing. All read the same
video and paint it; nothing is written, so that the network is the limit. Frames a second are those
of all sources together, from the first thread's start to the last one's end. What counts is the
ratios within a round; a turn during which other programs took more than 5 % of the cores is taken
again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2

from benchmarks.machine import describe, undisturbed
from engines.choose import load_engine
from engines.engine import Engine
from engines.shared import SharedEngine
from pipeline.api import stages_for
from pipeline.frame import Frame
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource, open_source
from pipeline.threads import expect_pipelines

SOURCES = 4


class Stalling(SyntheticSource):
    """Gives one frame, and then nothing until it is interrupted."""

    def __init__(self) -> None:
        super().__init__(720, 1280, 1, paced=True)
        self._over = threading.Event()

    def frames(self) -> Iterator[Frame]:
        yield from super().frames()
        self._over.wait()

    def interrupt(self) -> None:
        """Lets it end."""
        self._over.set()


def run_one(engine: Engine, video: str, frames: int) -> dict[str, Any]:
    """A single pipeline on the engine itself, as `streamseg run` has it for one source."""
    expect_pipelines(1)
    with closing(open_source(video, max_frames=frames)) as source:
        pipeline = Pipeline(source, stages_for(engine))
        begun, cpu = time.perf_counter(), time.process_time()
        pipeline.run()
        wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    return row([pipeline], wall_s, cpu_s, frames)


def run_several(engine: Engine, video: str, frames: int, *, stalling: bool) -> dict[str, Any]:
    """Four pipelines on an engine that they share, and perhaps a fifth that waits for ever."""
    count = SOURCES + stalling
    expect_pipelines(count)
    sources = [open_source(video, max_frames=frames // SOURCES) for _ in range(SOURCES)]
    with SharedEngine(engine, count) as shared:
        views = shared.views
        stalled = Pipeline(Stalling(), stages_for(views[-1])) if stalling else None
        pipelines = [
            Pipeline(source, stages_for(view)) for source, view in zip(sources, views, strict=False)
        ]
        waiting = [] if stalled is None else start([stalled])
        while stalled is not None and not stalled.delivered:
            time.sleep(0.01)
        begun, cpu = time.perf_counter(), time.process_time()
        for thread in start(pipelines):
            thread.join()
        wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
        if stalled is not None:
            stalled.stop()
        for thread in waiting:
            thread.join()
    return row(pipelines, wall_s, cpu_s, frames // SOURCES)


def start(pipelines: Sequence[Pipeline]) -> list[threading.Thread]:
    threads = [threading.Thread(target=pipeline.run) for pipeline in pipelines]
    for thread in threads:
        thread.start()
    return threads


def row(pipelines: Sequence[Pipeline], wall_s: float, cpu_s: float, each: int) -> dict[str, Any]:
    """Frames a second of all, and of each by its own time; processor time a frame. Raises if any
    frame is missing.
    """
    counts = [pipeline.ledger.delivered for pipeline in pipelines]
    if counts != [each] * len(pipelines):
        raise SystemExit(
            f"{counts} frames came through, not {each} of each: give a longer video, or --frames"
        )
    return {
        "fps": round(sum(counts) / wall_s, 3),
        "cpu_ms": round(1000 * cpu_s / sum(counts), 3),
        "fps_each": [round(p.ledger.delivered / p.wall_s, 3) for p in pipelines],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("video")
    parser.add_argument("--model", default="voc")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--batch", type=int, default=1, help="as TensorRT gains from; 1 elsewhere")
    parser.add_argument("--frames", type=int, default=240, help="of all sources together")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with load_engine(args.model, engine=args.engine, batch=args.batch, say=print) as engine:
        kinds = {
            "one": lambda: run_one(engine, args.video, args.frames),
            "four": lambda: run_several(engine, args.video, args.frames, stalling=False),
            "four_and_a_stalled": lambda: run_several(
                engine, args.video, args.frames, stalling=True
            ),
        }
        run_one(engine, args.video, max(8, args.frames // 8))  # warm
        rounds: list[dict[str, Any]] = []
        for number in range(args.rounds):
            turn = number % len(kinds)
            order = [*kinds][turn:] + [*kinds][:turn]
            got = {kind: undisturbed(kinds[kind]) for kind in order}
            rounds.append({kind: got[kind] for kind in kinds})
            print("  ".join(f"{kind} {got[kind]['fps']:.2f} fps" for kind in kinds), flush=True)
        info = engine.info
    ratios = {
        "four_over_one": [r["four"]["fps"] / r["one"]["fps"] for r in rounds],
        "cpu_four_over_one": [r["four"]["cpu_ms"] / r["one"]["cpu_ms"] for r in rounds],
        "stalled_over_four": [r["four_and_a_stalled"]["fps"] / r["four"]["fps"] for r in rounds],
        "cpu_stalled_over_four": [
            r["four_and_a_stalled"]["cpu_ms"] / r["four"]["cpu_ms"] for r in rounds
        ],
        "slowest_over_fastest_of_four": [
            min(r["four"]["fps_each"]) / max(r["four"]["fps_each"]) for r in rounds
        ],
    }
    medians = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
    for name, value in medians.items():
        spread = f"{min(ratios[name]):.3f} to {max(ratios[name]):.3f}"
        print(f"{name:28} {value:.3f} (median of {len(rounds)} rounds, {spread})")
    if args.json:
        result = {
            **describe(),
            "model": args.model,
            "engine": f"{info.name} {info.version}, {info.precision}",
            "frames": args.frames,
            "medians": medians,
            "ratios": {name: [round(v, 3) for v in values] for name, values in ratios.items()},
            "rounds": rounds,
        }
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
