"""A video in, an overlay out: streamseg beside what others use, on the same clip and network.

    python -m benchmarks.peers CLIP [CLIP ...] [--rounds 5] [--frames 150] [--int8 voc-int8.onnx]
        [--peers-python PEERS/bin/python] [--roboflow-python RF/bin/python] [--json FILE]

The peers live in environments of their own (benchmarks/requirements.txt says how to make them), so
that what they pin disturbs nothing here; whose interpreter is not named is left out, by name. Every
figure is frames a second from the first frame read to the closed file, without loading the network,
each measured in a process of its own, in turns, so that a slow moment of the machine meets all
alike. What counts are the ratios within a round.

- serial_openvino: OpenCV, OpenVINO in latency mode on all cores, NumPy, OpenCV, x264, in a loop;
- supervision: process_video with 8 frames read ahead and 8 written behind; MPEG-4 Part 2, which
  costs less than H.264, because it has no choice;
- model_api: OpenVINO Model API's AsyncPipeline in throughput mode, resizing and normalising in its
  graph;
- inference_pipeline: Roboflow's InferencePipeline with the same network as its custom logic;
- serial_pytorch: LR-ASPP of torchvision at 288x512 in PyTorch, in a loop as the articles do it,
  beside streamseg with the same network (weights are random in both: they change no time).

All compute in FP32, streamseg in what `auto` takes, which is in the result, and once in INT8.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from benchmarks.machine import describe
from engines.choose import load_engine
from engines.model import Model, find_model
from pipeline import Pipeline, open_source
from pipeline.api import stages_for
from pipeline.sinks import VideoSink
from tools.bench.machine import load_average

LRASPP, LRASPP_SIZE = "lraspp_mobilenet_v3_large", (288, 512)
PEER = Path(__file__).with_name("peer.py")


def network(name: str) -> Model:
    """A model by name, or the .onnx of one."""
    if name == LRASPP:
        return find_model(name, weights="random", size=LRASPP_SIZE)
    return find_model(name)


def run_streamseg(clip: str, name: str, frames: int) -> dict[str, Any]:
    """Frames a second of the command's own pipeline."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, load_engine(network(name)) as engine:
        source = open_source(clip, max_frames=frames)
        sink = VideoSink(Path(folder) / "out.mp4", source.info, encoder="libx264")
        begun, cpu = time.perf_counter(), time.process_time()
        pipeline = Pipeline(source, stages_for(engine), [sink])
        pipeline.run()
        wall, used = time.perf_counter() - begun, time.process_time() - cpu
        n = pipeline.ledger.delivered
        runs = engine.info
        return {"fps": n / wall, "cpu_ms": 1000 * used / n, "frames": n, "computes": runs.precision}


def ask_for(clip: str, model: Model, frames: int) -> dict[str, Any]:
    """What a peer is told."""
    with_rate, card = open_source(clip), model.card
    with_rate.close()
    return {
        "clip": clip,
        "frames": frames,
        "rate": float(with_rate.info.rate or 25),
        "onnx": str(model.file),
        "height": card.input.height,
        "width": card.input.width,
        "mean": card.input.mean,
        "std": card.input.std,
        "colors": card.colors.tolist(),
    }


def run(command: list[str]) -> dict[str, Any]:
    # In PyTorch's favour: its threads else burn the processor while they wait for one that others
    # use, six times what the network takes.
    calm = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=calm)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def commands(args: argparse.Namespace, clip: str, folder: Path) -> dict[str, list[str]]:
    """A command for each figure of a clip, by its name in the table."""
    own = [sys.executable, "-m", "benchmarks.peers", clip, "--frames", str(args.frames), "--one"]
    out = {"streamseg": [*own, "voc"]}
    if args.int8:
        out["streamseg, INT8"] = [*own, str(args.int8)]
    asked = {}
    for name in ("voc", LRASPP):
        asked[name] = folder / f"{Path(clip).stem}-{name}.json"
        # PyTorch is slow enough to be known after fewer frames.
        count = max(1, args.frames // 4) if name == LRASPP else args.frames
        asked[name].write_text(json.dumps(ask_for(clip, network(name), count)))
    voc = str(asked["voc"])
    out["serial_openvino"] = [sys.executable, str(PEER), "serial_openvino", voc]
    if args.peers_python:
        for peer in ("supervision", "model_api"):
            out[peer] = [args.peers_python, str(PEER), peer, voc]
    if args.roboflow_python:
        out["inference_pipeline"] = [args.roboflow_python, str(PEER), "inference_pipeline", voc]
    out["streamseg, LR-ASPP"] = [*own, LRASPP]
    if args.lraspp_int8:
        out["streamseg, LR-ASPP, INT8"] = [*own, str(args.lraspp_int8)]
    out["serial_pytorch, LR-ASPP"] = [
        sys.executable, str(PEER), "serial_pytorch", str(asked[LRASPP])
    ]  # fmt: skip
    return out


def compare(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Of each of our figures: how often the best peer's frames a second it has, and how often our
    processor time a frame goes into the least of theirs; medians over what lies within a round.

    The second holds on a machine that others use, too, and is what the first comes to at least
    where we keep all cores at work.
    """
    peers = [k for k in rounds if not k.startswith("streamseg") and "LR-ASPP" not in k]
    out = {}
    for mine in (k for k in rounds if k.startswith("streamseg")):
        theirs = ["serial_pytorch, LR-ASPP"] if "LR-ASPP" in mine else peers
        pairs = [
            (rounds[mine][i], [rounds[t][i] for t in theirs]) for i in range(len(rounds[mine]))
        ]
        speed = [own["fps"] / max(peer["fps"] for peer in all_) for own, all_ in pairs]
        work = [min(peer["cpu_ms"] for peer in all_) / own["cpu_ms"] for own, all_ in pairs]
        out[mine] = {
            "fps_ratio": round(statistics.median(speed), 2),
            "cpu_ratio": round(statistics.median(work), 2),
        }
    return out


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians and ratios of the rounds so far."""
    medians = {
        name: {key: round(statistics.median(r[key] for r in rows), 2) for key in ("fps", "cpu_ms")}
        for name, rows in rounds.items()
    }
    return {"medians": medians, "beside_the_best_peer": compare(rounds), "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--int8", type=Path, help="voc in INT8 (streamseg build)")
    parser.add_argument("--lraspp-int8", type=Path, help="LR-ASPP in INT8 (streamseg build)")
    parser.add_argument("--peers-python", help="interpreter that has supervision and model_api")
    parser.add_argument("--roboflow-python", help="interpreter that has inference")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_streamseg(args.clips[0], args.one, args.frames)))
        return
    result: dict[str, Any] = {
        **describe(),
        "load_average_before": load_average(),
        "frames": args.frames,
        "clips": {},
    }
    for clip in args.clips:
        name = Path(clip).name
        with tempfile.TemporaryDirectory() as folder:
            todo = commands(args, clip, Path(folder))
            rounds: dict[str, list[dict[str, Any]]] = {kind: [] for kind in todo}
            for number in range(args.rounds):
                for kind, command in todo.items():
                    rounds[kind].append(run(command))
                    print(f"{name} round {number + 1} {kind}: {rounds[kind][-1]}", flush=True)
                result["clips"][name] = summary(rounds)
                if args.json:
                    args.json.write_text(json.dumps(result, indent=2) + "\n")
        for kind, values in result["clips"][name]["medians"].items():
            print(f"{kind:26} {values['fps']:7.2f} frames/s {values['cpu_ms']:7.2f} ms of CPU")
        for kind, values in result["clips"][name]["beside_the_best_peer"].items():
            print(f"{kind}: {values}")


if __name__ == "__main__":
    main()
