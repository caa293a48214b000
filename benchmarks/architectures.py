"""Architectures beside each other: trained alike, then mIoU, size and speed in one table.

    python -m benchmarks.architectures CONFIG --networks street fpn/mobilenet_v2 ... \\
        --epochs 8 --work DIR --out architectures.json

Every network learns with CONFIG's data, augmentation, losses, optimizer and seed for the same
number of epochs, and the last one counts; only the network differs. CONFIG's weights are its
encoder's. What DIR holds already is not trained again: a command that was stopped goes on when it
is repeated. Then the engines take turns, so that a slow minute of the machine meets all alike; FPS
are medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from engines.card import read_card
from engines.choose import load_engine
from engines.cost import count
from engines.graph import read_onnx
from engines.zoo.smp import split_name
from tools.bench.machine import examine_machine
from tools.bench.measure import Stop, measure_engine, warm_up
from tools.config import parse_size
from tools.train.checkpoint import NAME
from tools.train.config import TrainConfig, read_config
from tools.train.session import train


def configured(base: TrainConfig, network: str, ask: argparse.Namespace) -> TrainConfig:
    """`base` with another network and budget."""
    values = base.model_dump(mode="json")
    if ask.size is not None:
        values["input"]["size"] = ask.size
    if ask.crop is not None:
        values["augment"]["crop"] = ask.crop
    named = split_name(network)
    if named is not None:
        values["network"] = {
            "library": "smp",
            "architecture": named[0],
            "encoder": named[1],
            "weights": values["network"]["weights"],
        }
    elif network != base.network.library:
        raise SystemExit(f"{network} is neither ARCHITECTURE/ENCODER nor {base.network.library}")
    values |= {
        "name": network.replace("/", "-"),
        "epochs": ask.epochs,
        "validate_every": ask.epochs,
    }
    return TrainConfig.model_validate(values)


def trained(config: TrainConfig, work: Path) -> Path:
    """The network's ONNX file, of its last epoch: nothing is picked by looking."""
    out = work / config.name
    made = out / f"{config.name}.onnx"
    if not made.exists():
        begun = (out / NAME).exists()
        if train(config, out, resume=begun, quiet=False, say=print):
            raise SystemExit("stopped; the same command goes on from here")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--networks", nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=parse_size, help="HxW instead of CONFIG's input.size")
    parser.add_argument("--crop", type=parse_size, help="HxW instead of CONFIG's augment.crop")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    ask = parser.parse_args()
    base = read_config(ask.config)
    files = {name: trained(configured(base, name, ask), ask.work) for name in ask.networks}
    rates: dict[str, list[float]] = {name: [] for name in files}
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(load_engine(file, precision="fp32"))
            for name, file in files.items()
        }
        for engine in engines.values():
            warm_up(engine)
        for _ in range(ask.rounds):
            for name, engine in engines.items():
                rates[name].append(measure_engine(engine, ask.seconds, 0.5, Stop()).fps)
        runs = next(iter(engines.values())).info
    report: dict[str, Any] = {
        "epochs": ask.epochs,
        "config": ask.config.name,
        "crop": ask.crop or base.augment.crop,
        "machine": examine_machine().model_dump(),
        "engine": f"{runs.name} {runs.version}, {runs.precision} on {runs.device}",
        "networks": [row(name, file, rates[name]) for name, file in files.items()],
    }
    print(table(report))
    if ask.out is not None:
        ask.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        ask.out.with_suffix(".md").write_text(table(report) + "\n", encoding="utf-8")


def row(name: str, file: Path, rates: list[float]) -> dict[str, Any]:
    """Of one network: mIoU at the end, what it costs, and how fast it is."""
    card = read_card(file.with_suffix(".yaml"))
    cost = count(read_onnx(file), (1, 3, card.input.height, card.input.width))
    return {
        "network": name,
        "input": f"{card.input.height}x{card.input.width}",
        "miou": card.metrics["miou"],
        "parameters": cost.parameters,
        "macs": cost.macs,
        "fps": round(statistics.median(rates), 1),
        "fps_rounds": [round(rate, 1) for rate in rates],
    }


def table(report: dict[str, Any]) -> str:
    """As Markdown, the fastest first."""
    lines = [
        "| network | input | mIoU | parameters | multiply-adds | FPS |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for each in sorted(report["networks"], key=lambda each: -float(each["fps"])):
        macs = "" if each["macs"] is None else f"{each['macs'] / 1e9:.2f} G"
        lines.append(
            f"| `{each['network']}` | {each['input']} | {each['miou']:.3f} "
            f"| {each['parameters'] / 1e6:.2f} M | {macs} | {each['fps']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
