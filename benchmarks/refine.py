"""What `--refine` gains and costs: mIoU, boundary F-score and time, refinement by refinement.

    python -m benchmarks.refine DATA --layout camvid --split val --model my.onnx \\
        --refine none --refine guided --refine crf --out refine.json

Every picture goes through all of them in turn, the first one another each time, one at a time, so
that a slow moment of the machine meets all alike. A time is from a picture's submission to its
labels, on one of the engine's streams, the others idle; `cost` is the median over the pictures of a
refinement's time divided by that of the first one named, for the same picture. Scores are those of
`streamseg evaluate`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.choose import load_engine
from engines.engine import Engine
from pipeline.frame import Image
from pipeline.stages.geometry import LabelScaler, to_network
from tools.data.layouts import open_dataset
from tools.data.survey import survey
from tools.evaluate.boundary import BoundaryScores
from tools.evaluate.match import match_classes
from tools.evaluate.metrics import Confusion, scores


class Run:
    """One refinement's engine, and what it has shown so far."""

    def __init__(self, engine: Engine, classes: tuple[str, ...]) -> None:
        self.engine = engine
        self.match = match_classes(classes, engine.card.classes)
        self.ms: list[float] = []
        self._counts = Confusion(len(classes) or len(self.match.classes), len(engine.card.classes))
        self._borders = BoundaryScores(len(self.match.classes))
        self._scale = LabelScaler()

    def add(self, image: Image, truth: Image) -> None:
        """Segments, times and compares one picture: uint8 (H, W, 3) RGB, uint8 (H, W) ids."""
        want = self.engine.card.input
        taken = to_network(image, want)
        begun = time.perf_counter()
        small = self.engine.submit(taken).result()[0]
        self.ms.append(1000 * (time.perf_counter() - begun))
        labels = self._scale(small, *truth.shape, want)
        self._counts.add(truth, labels)
        self._borders.add(*self.match.compared(truth, labels))

    def report(self, first: Run) -> dict[str, Any]:
        """Its figures, in percent and milliseconds."""
        found = scores(self.match.select(self._counts.counts), "ignore")
        ratios = [mine / its for mine, its in zip(self.ms, first.ms, strict=True)]
        want = self.engine.card.input
        return {
            "refine": self.engine.info.refine,
            "takes": f"{want.height}x{want.width}",
            "miou": round(100 * found.miou, 2),
            "boundary_f": round(100 * float(np.nanmean(self._borders.scores)), 2),
            "median_ms": round(statistics.median(self.ms), 2),
            "least_ms": round(min(self.ms), 2),
            "cost": round(statistics.median(ratios), 3),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--split")
    parser.add_argument("--model", required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--refine", action="append", required=True)
    parser.add_argument("--every", type=int, default=1, help="Only each so-manieth picture.")
    parser.add_argument("--out", type=Path)
    ask = parser.parse_args()
    cv2.setNumThreads(1)
    dataset = open_dataset(ask.data, ask.layout, ask.split)
    _, pictures = survey(dataset, keep=True)
    chosen = range(0, len(pictures), ask.every)
    with ExitStack() as stack:
        runs = [
            Run(
                stack.enter_context(
                    load_engine(ask.model, engine=ask.engine, precision=ask.precision, refine=text)
                ),
                dataset.classes,
            )
            for text in ask.refine
        ]
        for run in runs:  # what is made at the first run is no picture's cost
            run.engine.submit(to_network(pictures[0][0], run.engine.card.input)).result()
        for number, index in enumerate(chosen):
            image, truth = pictures[index]
            turn = number % len(runs)
            for run in [*runs[turn:], *runs[:turn]]:
                run.add(image, truth)
        info = runs[0].engine.info
        report: dict[str, Any] = {
            "data": f"{ask.layout} {ask.split or ''}".strip(),
            "pictures": len(chosen),
            "model": runs[0].engine.card.name,
            "engine": f"{info.name} {info.version}, {info.precision} on {info.device}",
            "runs": [run.report(runs[0]) for run in runs],
        }
    for row in report["runs"]:
        print(
            f"{row['refine'][:60]:60} {row['takes']:>9} mIoU {row['miou']:.2f} boundary F "
            f"{row['boundary_f']:.2f} {row['median_ms']:8.2f} ms, {row['cost']:.2f} times"
        )
    if ask.out is not None:
        ask.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
