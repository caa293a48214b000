"""What `--every N` costs in agreement and gains in speed, on clips that move.

    python -m benchmarks.every CLIP... --model voc --every 2 --every 3 \\
        --reference-size 513x913 --json every.json

Labels of every frame, once by the model at full rate and once for each N, are compared with those
of a reference, the same network at a larger input, which stands in for the truth that clips do not
have; `kept` is the foreground IoU with N over that at full rate. `held` is the same for labels that
simply stay. Speeds are of the whole pipeline without an output, medians of rounds taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2

from benchmarks.machine import describe
from engines.choose import load_engine
from engines.engine import Engine
from pipeline.api import stages_for
from pipeline.frame import Image
from pipeline.runner import Pipeline
from pipeline.sources import open_source
from tools.config import parse_size


def labels_of(clip: Path, engine: Engine, frames: int, every: int = 1) -> tuple[list[Image], float]:
    """Ids of each frame, uint8 (H, W), a quarter of its size, and frames a second."""
    found = []
    with closing(open_source(clip, max_frames=frames)) as source:
        with Pipeline(source, stages_for(engine, every=every)) as pipeline:
            begun = time.perf_counter()
            for frame in pipeline:
                assert frame.labels is not None
                found.append(frame.labels[::2, ::2].copy())
            passed_s = time.perf_counter() - begun
    return found, len(found) / passed_s


def foreground(ours: list[Image], theirs: list[Image]) -> float:
    """IoU over all classes but the background, pooled: what is equal over what either has."""
    same = sum(int(((a == b) & (a > 0)).sum()) for a, b in zip(ours, theirs, strict=True))
    one, other = (sum(int((a > 0).sum()) for a in labels) for labels in (ours, theirs))
    return same / max(1, one + other - same)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="voc")
    parser.add_argument("--reference-size", type=parse_size, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--every", type=int, action="append", required=True)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    ask = parser.parse_args()
    cv2.setNumThreads(1)
    rows: list[dict[str, Any]] = []
    with load_engine(ask.model, precision=ask.precision) as engine:
        for clip in ask.clips:
            rates: dict[int, list[float]] = {n: [] for n in (1, *ask.every)}
            labels: dict[int, list[Image]] = {}
            for _ in range(ask.rounds):
                for n in rates:
                    labels[n], fps = labels_of(clip, engine, ask.frames, n)
                    rates[n].append(fps)
            size = ask.reference_size
            with load_engine(ask.model, precision=ask.precision, size=size) as better:
                truth = labels_of(clip, better, ask.frames)[0]
            full, full_fps = foreground(labels[1], truth), statistics.median(rates[1])
            for n in ask.every:
                held = [labels[1][i - i % n] for i in range(len(truth))]
                rows.append(
                    {
                        "clip": clip.name,
                        "every": n,
                        "iou_full_rate": round(full, 4),
                        "iou": round(foreground(labels[n], truth), 4),
                        "kept": round(foreground(labels[n], truth) / full, 4),
                        "held": round(foreground(held, truth) / full, 4),
                        "with_full_rate": round(foreground(labels[n], labels[1]), 4),
                        "fps": round(statistics.median(rates[n]), 1),
                        "speed": round(statistics.median(rates[n]) / full_fps, 2),
                    }
                )
                print(rows[-1], flush=True)
    if ask.json is not None:
        report = {
            **describe(),
            "model": ask.model,
            "precision": ask.precision,
            "reference_size": ask.reference_size,
            "frames": ask.frames,
            "rows": rows,
        }
        ask.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
