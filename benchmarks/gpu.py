"""How much of a card's speed reaches the end of the pipeline, beside PyTorch on the same card.

    python -m benchmarks.gpu --json benchmarks/results/gpu_CARD.json [NAME ...]
        [--engine tensorrt|torch] [--clip VIDEO] [--batch 8] [--minutes 7]

For each model, each a part that is written when it is done, with the commit and the command that
measured it, and not measured again:

- engine: frames a second of the network alone, pictures and labels lying on the card, enqueues back
  to back, one at a time and in batches; and the roofline: operations of the network divided by the
  rate of a large matrix product in FP16, measured in the same run;
- lane: frames a second from a synthetic 1080p source (YUV, as decoders give it) to the caller,
  through upload, resizing, network, painting and download; the same from a file, and what decoding
  that file reaches alone; the ratios to the engine's own;
- live: what the pipeline adds to a frame's age at 30 and 60 frames a second, p50 and p99;
- start: seconds from the start of `streamseg run` to its first frame, its caches filled;
- torch: PyTorch in FP16, channels last, with cuDNN's search for the fastest kernels: the network
  alone, eager, compiled, and compiled with CUDA graphs (reduce-overhead); and the plain loop of the
  articles (read, convert, resize, to the card, network, argmax, back, colour), with all cores.

No part begins after --minutes; those that are left are measured by the next run. Random weights
measure the same speed. The table is printed; `--chart FILE.svg` draws it.
"""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from benchmarks.gpu_table import chart, table
from benchmarks.gpu_torch import measure_torch
from benchmarks.gpu_work import PICTURE, PlanesSource, rate, size_of
from benchmarks.machine import describe
from engines.choose import load_engine
from engines.cost import count
from engines.cuda.device import open_device
from engines.cuda.network import DeviceEngine
from engines.errors import CaptureError
from engines.model import Model, find_model
from engines.zoo.torchvision import NETWORKS
from pipeline.api import stages_for
from pipeline.frame import Frame
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource, open_source
from tools.bench.latency import run_live
from tools.bench.measure import Stop

FIRST = ("voc", "fcn_resnet50", "lraspp_mobilenet_v3_large")
NAMES = (*FIRST, *(name for name in NETWORKS if name not in FIRST))
PARTS = ("engine", "lane", "live", "start", "torch")


def main() -> None:
    """Measures what is left, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="models; default: all, the important ones first")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--engine", default="tensorrt", choices=("tensorrt", "torch"))
    parser.add_argument("--weights", default="random", help="official or random")
    parser.add_argument("--size", default="520x520", help="height x width of torchvision's models")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--clip", type=Path, help="a video; without it one is made")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=7.0, help="no part begins after these")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--chart", type=Path)
    ask = parser.parse_args()
    until = time.perf_counter() + 60 * ask.minutes
    cv2.setNumThreads(1)
    device = open_device()
    result: dict[str, Any] = json.loads(ask.json.read_text()) if ask.json.exists() else {}
    card = f"{device.name}, compute capability {device.compute_capability}"
    if (result.get("card", card), result.get("engine", ask.engine)) != (card, ask.engine):
        raise SystemExit(f"{ask.json} is of {result['card']} with {result['engine']}: name another")
    how = describe() | {"commit": _commit()}
    result |= how | {
        "card": card,
        "driver": device.driver,
        "engine": ask.engine,
        "picture": list(PICTURE),
    }
    models = result.setdefault("models", {})

    def keep() -> None:
        ask.json.write_text(json.dumps(result, indent=2) + "\n")

    if "tflops" not in result:
        result["tflops"] = _matrix_rate()
        keep()
    with tempfile.TemporaryDirectory() as folder:
        clip = ask.clip or _make_clip(Path(folder) / "made.mp4")
        result["clip"] = clip.name if ask.clip else "made up, easy to decode"
        for name in ask.names or NAMES:
            row = models.setdefault(_key(name, ask), {})
            for part in ask.parts.split(","):
                done = part in row and "problem" not in row[part]
                if done or time.perf_counter() > until:
                    continue
                begun = time.perf_counter()
                try:
                    row[part] = MEASURES[part](name, clip, ask, result)
                except Exception as error:  # the others are worth having all the same
                    row[part] = {"problem": f"{type(error).__name__}: {error}"}
                row[part] |= {"took_s": round(time.perf_counter() - begun, 1), **how}
                print(f"{_key(name, ask)} {part}: {row[part]}", flush=True)
                keep()
    print("\n".join(table(result)))
    if ask.chart:
        ask.chart.write_text(chart(result))


def measure_engine(name: str, clip: Path, ask: Any, result: dict[str, Any]) -> dict[str, Any]:
    """The network alone on the card."""
    import pycuda.driver as cuda

    model = _model(name, ask)
    want, rows = model.card.input, {}
    for batch in sorted({1, ask.batch}):
        with open_device().current():
            before = cuda.mem_get_info()[0]
        with load_engine(model, engine=ask.engine, batch=batch) as engine:
            assert isinstance(engine, DeviceEngine)
            with engine.device.current():
                stream = cuda.Stream()
                pixels = want.height * want.width
                pictures, labels = (cuda.mem_alloc(batch * pixels * n) for n in (3, 1))
                noise = np.random.default_rng(0).integers(0, 256, batch * pixels * 3, np.uint8)
                cuda.memcpy_htod(pictures, noise)
                context = engine.bind(int(pictures), int(labels), batch)

                def plain(context: Any = context, batch: int = batch, stream: Any = stream) -> None:
                    context.enqueue(batch, stream)

                plain()
                stream.synchronize()
                try:
                    once, how = context.capture(stream, plain), "graph"
                except CaptureError as error:
                    once, how = plain, f"plain: {error}"

                def work(times: int, once: Any = once, stream: Any = stream) -> None:
                    for _ in range(times):
                        once()
                    stream.synchronize()

                rows[str(batch)] = {
                    "fps": rate(work, batch, ask),
                    "how": how,
                    "memory_mib": (before - cuda.mem_get_info()[0]) >> 20,
                }
                context.free()
                pictures.free()
                labels.free()
            precision = engine.info.precision
    out: dict[str, Any] = {"precision": precision, "batches": rows}
    if model.file.suffix == ".onnx":
        cost = count(onnx.load(model.file), (1, 3, want.height, want.width))
        if cost.macs and result["tflops"]:
            out["gigaoperations"] = round(2e-9 * cost.macs, 2)
            out["roofline_fps"] = round(1e12 * result["tflops"] / (2 * cost.macs), 1)
            best = max(row["fps"] for row in rows.values())
            out["of_roofline"] = round(best / out["roofline_fps"], 3)
    return out


def measure_lane(name: str, clip: Path, ask: Any, result: dict[str, Any]) -> dict[str, Any]:
    """Whole pipelines, beside the engine's own rate at the same batch."""
    out: dict[str, Any] = {"notes": []}
    alone = result["models"][_key(name, ask)].get("engine", {}).get("batches", {})
    decode = [_drain(open_source(clip), [], ask) for _ in range(ask.rounds)]
    out["decode_fps"] = round(statistics.median(decode), 1)
    for batch in sorted({1, ask.batch}):
        with load_engine(_model(name, ask), engine=ask.engine, batch=batch) as engine:
            rows: dict[str, list[float]] = {"synthetic": [], "file": []}
            for _ in range(ask.rounds):
                for kind, values in rows.items():
                    stages = stages_for(engine, labels=False, say=out["notes"].append)
                    source = PlanesSource(*PICTURE, 1 << 30) if kind == "synthetic" else clip
                    opened = open_source(source) if isinstance(source, Path) else source
                    values.append(_drain(opened, stages, ask))
            row: dict[str, Any] = {k: round(statistics.median(v), 1) for k, v in rows.items()}
            if own := alone.get(str(batch), {}).get("fps"):
                row["of_engine"] = {k: round(row[k] / own, 3) for k in rows}
            out[str(batch)] = row
    out["notes"] = sorted(set(out["notes"]))
    return out


def measure_live(name: str, clip: Path, ask: Any, result: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline adds to a frame's age."""
    out = {}
    with load_engine(_model(name, ask), engine=ask.engine) as engine:
        for fps in (30, 60):
            run = run_live(engine, fps, 5 * ask.seconds, 1.0, PICTURE, Stop())
            out[str(fps)] = {**run.latency.as_dict((50, 99)), "missed": run.missed}
    return out


def measure_start(name: str, clip: Path, ask: Any, result: dict[str, Any]) -> dict[str, Any]:
    """Seconds to the first frame, of three starts after one that fills the caches."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(4):
            report = Path(folder) / f"{i}.json"
            command = [sys.executable, "-m", "tools.cli", "run", str(clip), "--model", name]
            command += ["--engine", ask.engine, "--max-frames", "5", "--report", str(report)]
            if name in NETWORKS:
                command += ["--weights", ask.weights, "--size", ask.size]
            subprocess.run(command, check=True, capture_output=True, timeout=400)
            seconds.append(json.loads(report.read_text())["first_frame_s"])
    return {"first_frame_s": sorted(seconds[1:])}  # the first start fills the caches


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "engine": measure_engine,
    "lane": measure_lane,
    "live": measure_live,
    "start": measure_start,
    "torch": measure_torch,
}


def _drain(source: Any, stages: list[Any], ask: Any) -> float:
    """Frames a second to a caller who does nothing with them, the first second left out."""
    times = []
    with Pipeline(source, stages) as pipeline:
        for _ in pipeline:
            times.append(time.perf_counter())
            if times[-1] - times[0] > 1 + 2 * ask.seconds:
                break
        pipeline.stop()
    source.close()
    used = [t for t in times if t - times[0] >= min(1.0, (times[-1] - times[0]) / 3)]
    return (len(used) - 1) / (used[-1] - used[0])


def _matrix_rate() -> float | None:
    """10^12 operations a second of a large product in FP16; None where no torch has the card."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    size, times = 8192, 20
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))
    rates = []
    for _ in range(6):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(times):
            torch.mm(a, b)
        torch.cuda.synchronize()
        rates.append(2e-12 * size**3 * times / (time.perf_counter() - begun))
    return round(statistics.median(rates[1:]), 1)


def _make_clip(path: Path) -> Path:
    """A minute of moving 1080p, easier to decode than what a camera sees."""
    from pipeline.sinks import VideoSink

    source = SyntheticSource(*PICTURE, 3600, fps=60)

    def seen() -> Iterator[Frame]:
        for frame in source.frames():
            frame.picture = frame.image
            yield frame

    for _ in VideoSink(path, source.info).run(seen()):
        pass
    return path


def _model(name: str, ask: Any) -> Model:
    if name in NETWORKS:
        return find_model(name, weights=ask.weights, size=size_of(ask))
    return find_model(name)


def _key(name: str, ask: Any) -> str:
    return f"{name} {ask.size}" if name in NETWORKS else name


def _commit() -> str:
    def ask(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()

    changed = " with changes" if ask("status", "--porcelain", "--untracked-files=no") else ""
    return f"{ask('rev-parse', 'HEAD')}{changed}" if ask("rev-parse", "HEAD") else "not a clone"


if __name__ == "__main__":
    main()
