"""The end of a training: the best weights as ONNX, its card, and a check that both are right."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

from engines.card import Card
from engines.choose import load_engine
from engines.export import export_onnx
from engines.model import Model
from pipeline.stages.geometry import to_network
from tools.data.labelled import Dataset
from tools.data.survey import Pictures
from tools.errors import TrainError
from tools.train.checkpoint import Checkpoint
from tools.train.config import TrainConfig
from tools.train.network import Normalize, card_input, enlarge

# Pictures on which the file is compared with the network that it was made from.
_COMPARED = 4
# Of their pixels, how many may differ: where two classes are nearly alike, rounding decides.
_MAY_DIFFER = 0.005


def export_best(
    config: TrainConfig,
    out: Path,
    network: nn.Module,
    state: Checkpoint,
    train: Dataset,
    val: Pictures,
) -> Path:
    """Writes OUT/NAME.onnx and its card OUT/NAME.yaml; returns the first.

    `network` is given the best weights. Raises TrainError if the file, run by an engine, does not
    answer as the network does.
    """
    network.load_state_dict(state.best)
    network.cpu().to(memory_format=torch.contiguous_format).eval()
    path = out / f"{config.name}.onnx"
    export_onnx(network, path, size=config.input.size, half=config.export.weights == "fp16")
    row = state.history[state.best_epoch - 1]
    metrics = {key: round(row[f"val_{key}"], 4) for key in ("miou", "pixel_accuracy")}
    card = Card(
        name=config.name,
        description=config.export.description,
        input=card_input(config.input),
        classes=train.classes,
        palette=train.palette,
        license=config.export.license,
        source=config.export.source,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        metrics={
            **metrics,
            "measured_on": f"{config.data.layout} {config.data.val}",
            "epoch": state.best_epoch,
            "parameters": sum(p.numel() for p in network.parameters()),
        },
    )
    text = yaml.safe_dump(
        card.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True
    )
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")
    _compare(network, Model(card, path), val)
    return path


def _compare(network: nn.Module, model: Model, val: Pictures) -> None:
    want = model.card.input
    normalize = Normalize(want)
    different = pixels = 0
    with load_engine(model, precision="fp32") as engine, torch.inference_mode():
        for index in range(min(_COMPARED, len(val))):
            picture = to_network(val[index][0], want)
            answered = engine.submit(picture).result()
            scores = network(normalize(torch.from_numpy(picture).permute(0, 3, 1, 2)))
            expected = enlarge(scores, (want.height, want.width)).argmax(1)
            different += int(np.count_nonzero(answered != expected.numpy()))
            pixels += answered.size
    if different > _MAY_DIFFER * pixels:
        raise TrainError(
            f"{model.file} does not answer as the network does: {different / pixels:.1%} of the "
            "pixels differ; it is not to be used"
        )
