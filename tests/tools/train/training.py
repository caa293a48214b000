"""A training that takes seconds: few small pictures, a thin network.

With ReLU6, as in MobileNetV2, torch would take 10 s longer to write the ONNX file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CONFIG: dict[str, Any] = {
    "name": "thin",
    "data": {"layout": "pairs"},
    "network": {
        "library": "smp",
        "architecture": "Unet",
        "encoder": "tu-test_resnet",
        "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    },
    "input": {"size": [24, 32]},
    "augment": {"scale": [0.7, 1.5], "brightness": 0.1},
    "losses": [{"kind": "cross_entropy"}, {"kind": "lovasz", "weight": 0.5}],
    "optimizer": {"kind": "adamw", "lr": 0.01},
    "epochs": 3,
    "batch": 4,
    "ema": 0.9,
}


def write_config(folder: Path, data: Path, **changes: Any) -> Path:
    """CONFIG as a file; `a__b` changes key b of a, a change to None leaves a key out."""
    keys = yaml.safe_load(yaml.safe_dump(CONFIG))
    keys["data"]["root"] = str(data)
    for name, value in changes.items():
        *way, last = name.split("__")
        part = keys
        for step in way:
            part = part.setdefault(step, {})
        if value is None:
            part.pop(last, None)
        else:
            part[last] = value
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return path


def read_log(folder: Path) -> list[dict[str, str]]:
    """log.csv without the column that no two runs share."""
    header, *lines = (folder / "log.csv").read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
