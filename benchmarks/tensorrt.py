"""How fast plans are on this card, beside PyTorch on the same card in the same run.

    python -m benchmarks.tensorrt [NAME ...] --json benchmarks/results/tensorrt_CARD.json

For each model: build time, plan size, the guard's figures (real weights only), engine-only frames
per second at each batch (enqueues back to back on all slots, no copies), and the same with copies
through `submit`; then torch eager in FP16, channels last, and torch.compile on the same input. The
JSON is written after every model, and a model that stands in it is not measured again, so a run
that is cut goes on where it was. Without official weights at hand, --weights random measures the
same speed; the guard is left out then.
"""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_work import rate
from engines.cuda.device import open_device
from engines.errors import EngineError
from engines.model import Model, find_model
from engines.tensorrt import plans
from engines.tensorrt.options import PlanOptions
from engines.tensorrt.passport import host_of
from engines.zoo.named import named_model
from engines.zoo.torchvision import NETWORKS, make_torchvision

FIRST = ("voc", "fcn_resnet50", "lraspp_mobilenet_v3_large")
REST = tuple(name for name in NETWORKS if name not in FIRST)


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="models; default: all, the important ones first")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--weights", default="official", help="official or random")
    parser.add_argument("--size", default="520x520", help="height x width of torchvision's models")
    parser.add_argument("--batches", default="1,2,4,8")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each of the rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optimization", type=int, default=3)
    parser.add_argument("--no-torch", action="store_true")
    ask = parser.parse_args()
    device = open_device()
    result = json.loads(ask.json.read_text()) if ask.json.exists() else {"models": {}}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    result |= {
        "command": " ".join(["python -m benchmarks.tensorrt", *sys.argv[1:]]),
        "commit": commit.stdout.strip() or "not a clone",
        "date": date.today().isoformat(),
        "host": host_of(device).model_dump(),
    }
    batches = [int(part) for part in ask.batches.split(",")]
    height, width = (int(part) for part in ask.size.split("x"))
    for name in ask.names or (*FIRST, *REST):
        key = name if name == "voc" else f"{name}-{height}x{width}"
        if key in result["models"]:
            continue
        try:
            row = _measure(name, (height, width), batches, ask, device)
        except EngineError as error:
            print(f"{key}: {error}", file=sys.stderr)
            continue
        result["models"][key] = row
        ask.json.write_text(json.dumps(result, indent=2) + "\n")
        print(_line(key, row), flush=True)


def _measure(
    name: str, size: tuple[int, int], batches: list[int], ask: Any, device: Any
) -> dict[str, Any]:
    model: Model
    if name in NETWORKS:
        model = named_model(name, ask.weights, size, say=print)
    else:
        model = find_model(name)
    options = PlanOptions(batch=batches[-1], batch_max=batches[-1], optimization=ask.optimization)
    order = plans.Order(model, options, device, lambda line: print(line, flush=True))
    begun = time.perf_counter()
    path, passport = plans.keep(order)
    row: dict[str, Any] = {
        "size": [model.card.input.height, model.card.input.width],
        "weights": model.card.metrics.get("weights", "shipped"),
        "build_s": passport.build_s,
        "keep_s": round(time.perf_counter() - begun, 2),
        "plan_mb": round(path.stat().st_size / 1e6, 2),
        "guard": None if passport.guard is None else passport.guard.model_dump(),
        "engine_only_fps": {},
        "submit_fps": {},
    }
    begun = time.perf_counter()
    with plans.load_kept(order) as engine:
        row["load_s"] = round(time.perf_counter() - begun, 3)
        for batch in batches:
            pictures = np.random.default_rng(0).integers(0, 256, (batch, *row["size"], 3), np.uint8)
            engine.submit(pictures).result()

            def submit(count: int, pictures: Any = pictures) -> None:
                pending = [engine.submit(pictures) for _ in range(count)]
                pending[-1].result()

            def enqueue(count: int, batch: int = batch) -> None:
                with device.current():
                    for number in range(count):
                        engine._slots[number % len(engine._slots)].compute(batch)
                    for slot in engine._slots:
                        slot.stream.synchronize()

            row["engine_only_fps"][batch] = rate(enqueue, batch, ask)
            row["submit_fps"][batch] = rate(submit, batch, ask)
    if name in NETWORKS and not ask.no_torch:
        row["torch"] = _torch(name, ask, batches, size)
    return row


def _torch(name: str, ask: Any, batches: list[int], size: tuple[int, int]) -> dict[str, Any]:
    """PyTorch on the same card: pictures on the device to class ids on the device."""
    try:
        import torch
    except ImportError:
        return {"problem": "torch is not installed"}
    if not torch.cuda.is_available():
        return {"problem": "this torch has no CUDA"}
    network = make_torchvision(name, weights=ask.weights)
    network = network.half().cuda().to(memory_format=torch.channels_last)
    rates: dict[str, Any] = {"version": torch.__version__}
    with torch.inference_mode():
        for kind in ("eager", "compile"):
            run = network if kind == "eager" else torch.compile(network)
            rates[kind] = {}
            for batch in batches:
                pictures = torch.rand(batch, 3, *size, device="cuda", dtype=torch.float16)
                pictures = pictures.to(memory_format=torch.channels_last)

                def work(count: int, run: Any = run, pictures: Any = pictures) -> None:
                    for _ in range(count):
                        run(pictures).argmax(1).to(torch.uint8)
                    torch.cuda.synchronize()

                rates[kind][batch] = rate(work, batch, ask)
    return rates


def _line(key: str, row: dict[str, Any]) -> str:
    most = max(row["engine_only_fps"], key=int)
    text = f"{key}: built in {row['build_s']:.0f} s, {row['plan_mb']} MB, engine only "
    text += f"{row['engine_only_fps'][most]} fps at batch {most}, submit {row['submit_fps'][most]}"
    for kind in ("eager", "compile"):
        if kind in row.get("torch", {}):
            text += f", torch {kind} {row['torch'][kind][most]}"
    return text


if __name__ == "__main__":
    main()
