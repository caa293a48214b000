"""A video in, an overlay out: streamseg beside supervision, and beside what the cores could do.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.video VIDEO [--rounds 5] [--frames 289] [--json FILE]

Three figures, taken in turns so that a slow moment of the machine meets all alike, each in a
process of its own:

- `streamseg`: the command's own pipeline to an H.264 overlay. Frames a second from the first frame
  read to the closed file; loading the network is not counted, here or below.
- `supervision`: supervision.process_video (prefetch 8, writer buffer 8; it writes MPEG-4 Part 2,
  which costs less than H.264) with a callback that runs the same ONNX on OpenVINO in the usual
  numpy way: resize, normalise, infer, argmax, resize, look up colours, blend.
- `limit`: cores / (CPU seconds that decode, preprocess, infer, colorize and encode each take a
  frame, each measured alone). No schedule of the same work on the same cores can be faster, save
  that work done side by side shares caches differently than alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from engines.choose import load_engine
from engines.cores import available_cores
from engines.model import find_model
from pipeline import Pipeline, open_source
from pipeline.api import stages_for
from pipeline.sinks import VideoSink
from pipeline.stages import Look
from pipeline.stages.colorize import Painter
from pipeline.stages.geometry import LabelScaler, to_network

_KEPT = 48
KINDS = ("streamseg", "supervision", "limit")


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


def run_supervision(clip: str, frames: int) -> dict[str, Any]:
    """Frames a second of supervision.process_video with the usual callback."""
    import openvino as ov
    import supervision as sv

    model = find_model("voc")
    card = model.card
    height, width = card.input.height, card.input.width
    core = ov.Core()
    network = core.read_model(str(model.file))
    network.reshape([1, 3, height, width])
    compiled = core.compile_model(network, "CPU")
    palette = card.colors[:, ::-1]

    def callback(frame: Any, index: int) -> Any:
        rgb = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
        tensor = (rgb.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None]
        logits = compiled([tensor])[0]
        small = logits[0].argmax(axis=0).astype(np.uint8)
        size = (frame.shape[1], frame.shape[0])
        labels = cv2.resize(small, size, interpolation=cv2.INTER_NEAREST)
        blended = cv2.addWeighted(frame, 0.5, palette[labels], 0.5, 0)
        return np.where((labels > 0)[..., None], blended, frame)

    with tempfile.TemporaryDirectory() as folder:
        callback(np.zeros((720, 1280, 3), np.uint8), 0)
        begun, cpu = time.perf_counter(), time.process_time()
        target = str(Path(folder) / "out.mp4")
        sv.process_video(clip, target, callback, max_frames=frames, prefetch=8, writer_buffer=8)
        wall = time.perf_counter() - begun
        n = av.open(target).streams.video[0].frames
        return {"fps": n / wall, "cpu_ms": 1000 * (time.process_time() - cpu) / n}


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
                renumbered = (replace(f, pts=i * step) for i, f in enumerate(turns))
                return sum(1 for _ in sink.run(renumbered))

        for name, work in (
            ("preprocess", prepare), ("infer", network), ("colorize", paint), ("encode", encode),
        ):  # fmt: skip
            measure(name, work)
    total = sum(costs.values())
    rounded = {name: round(ms, 2) for name, ms in costs.items()}
    return {"fps": 1000 * available_cores() / total, "cpu_ms": total, "parts_ms": rounded}


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
        run = {"streamseg": run_streamseg, "supervision": run_supervision, "limit": run_limit}
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
        "streamseg / supervision": [
            a["fps"] / b["fps"]
            for a, b in zip(results["streamseg"], results["supervision"], strict=True)
        ],
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
            "date": date.today().isoformat(),
            "clip": Path(args.clip).name,
            "machine": f"{platform.machine()}, {available_cores()} cores",
            "python": platform.python_version(),
            "median_fps": median,
            "median_ratio": {name: statistics.median(v) for name, v in ratios.items()},
            "rounds": results,
        }
        args.json.write_text(json.dumps(summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
