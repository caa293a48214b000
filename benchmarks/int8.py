"""What 8 bits cost in agreement and gain in speed, on clips that they were not calibrated with.

    python -m benchmarks.int8 CLIP... --calibrate OTHER_CLIP... [--model voc] [--json FILE]

`streamseg build --precision int8` makes the network of the calibration clips. On the other clips
its labels are compared with FP32's, both on OpenVINO at the network's size: the share of all pixels
that agree; of those that FP32 gives to a class other than the first, the share that get the same
one (`foreground`); and the IoU of these pixels (`foreground_iou`: what is equal over what either
has). Rates are the engine's alone, always full, medians of rounds taken in turns, also in bf16
where the processor computes in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import describe, undisturbed
from engines.choose import load_engine
from engines.engine import Engine
from engines.openvino_engine import available_precisions
from pipeline.sources import open_source
from pipeline.stages.geometry import to_network
from tools.bench.measure import Stop, measure_engine


def agreement(clip: Path, exact: Engine, int8: Engine, frames: int) -> dict[str, float]:
    """How the two engines' labels of a clip's first frames agree."""
    same = both = one = other = count = 0
    with closing(open_source(clip, max_frames=frames)) as source:
        for frame in source.frames():
            picture = to_network(frame.held_image, exact.card.input)
            right, mine = exact.submit(picture).result(), int8.submit(picture).result()
            equal, count = right == mine, count + right.size
            same += np.count_nonzero(equal)
            both += np.count_nonzero(equal & (right > 0))
            one, other = one + np.count_nonzero(right), other + np.count_nonzero(mine)
    return {
        "pixels": round(same / count, 4),
        "foreground": round(both / max(1, one), 4),
        "foreground_iou": round(both / max(1, one + other - both), 4),
        "foreground_share": round(one / count, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--calibrate", nargs="+", type=Path, required=True)
    parser.add_argument("--model", default="voc")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=2.0, help="a round, of each engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    ask = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        made = Path(folder) / "int8.onnx"
        command = [sys.executable, "-m", "tools.cli", "build", ask.model, "--precision", "int8"]
        command += [word for clip in ask.calibrate for word in ("--calibrate", str(clip))]
        subprocess.run([*command, "-o", str(made)], check=True)
        loads: dict[str, dict[str, Any]] = {
            p: {"model": ask.model, "precision": p}
            for p in available_precisions()
            if p in ("fp32", "bf16")
        }
        loads["int8"] = {"model": made}
        engines = {
            name: stack.enter_context(load_engine(engine="openvino", **how))
            for name, how in loads.items()
        }
        exact, int8 = engines["fp32"], engines["int8"]
        agreements = {c.name: agreement(c, exact, int8, ask.frames) for c in ask.clips}
        rounds: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(ask.rounds):
            for name, engine in engines.items():
                measure = partial(measure_engine, engine, ask.seconds, 0.5, Stop())
                rounds[name].append(undisturbed(measure).fps)
        want = int8.card.input
        report = {
            **describe(),
            "model": ask.model,
            "input": [want.height, want.width],
            "kept_in_fp32": int8.card.metrics.get("kept_in_fp32"),
            "agreement": agreements,
            "fps": {name: round(statistics.median(rates), 1) for name, rates in rounds.items()},
            "int8_over": {
                name: round(
                    statistics.median(
                        mine / its for mine, its in zip(rounds["int8"], rates, strict=True)
                    ),
                    2,
                )
                for name, rates in rounds.items()
                if name != "int8"
            },
            "rounds": rounds,
        }
    print(json.dumps({k: v for k, v in report.items() if k != "rounds"}, indent=2))
    if ask.json is not None:
        ask.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
