"""A training's file: what may stand in it, and what mistakes say."""

import os
from pathlib import Path

import pytest
import typer
import yaml

from tests.tools.train.training import write_config
from tools.train.config import TrainConfig, differences, read_config

CONFIGS = Path(__file__).parents[3] / "configs" / "train"


def keys_of(value, at=""):
    if isinstance(value, dict):
        for name, part in value.items():
            yield f"{at}{name}"
            yield from keys_of(part, f"{at}{name}.")


def test_the_example_has_every_key_with_its_default():
    example = read_config(CONFIGS / "example.yaml")
    given = yaml.safe_load((CONFIGS / "example.yaml").read_text(encoding="utf-8"))
    expected = set(keys_of(example.model_dump(mode="json")))
    assert set(keys_of(given)) == expected
    text = (CONFIGS / "example.yaml").read_text(encoding="utf-8")
    for kind in ("dice", "focal", "gamma", "momentum", "nesterov"):
        assert kind in text
    required = {"name", "data", "network", "input", "losses", "optimizer", "epochs", "batch"}
    for name, field in TrainConfig.model_fields.items():
        assert field.is_required() == (name in required)
        if not field.is_required() and name != "schedule":
            assert getattr(example, name) == field.default, name


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_ours_is_read(path, monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMSEG_SHARED", str(tmp_path))
    monkeypatch.setenv("STREET_START", str(tmp_path / "checkpoint.pt"))
    assert read_config(path).name


MISTAKES = {
    "epocs": ({"epocs": 3}, "epocs: there is no such key (configs/train/example.yaml explains"),
    "nested": ({"input__sise": [1, 2]}, "input.sise: there is no such key"),
    "missing": ({"epochs": None}, "epochs: Field required"),
    "range": ({"batch": 0}, "batch: should be greater than or equal to 1, got 0"),
    "kind": ({"losses": [{"kind": "l2"}]}, "losses.0: "),
    "loss key": ({"losses": [{"kind": "dice", "gamma": 2}]}, "losses.0.gamma: there is no such"),
    "twice": ({"losses": [{"kind": "dice"}, {"kind": "dice"}]}, "losses names a kind twice"),
    "layout": ({"data__layout": "coco"}, "data.layout: "),
    "scale": ({"augment__scale": [2, 1]}, "augment: scale is [2.0, 1.0]"),
    "share": ({"data__val": 1.5}, "data.val"),
    "variable": (
        {"data__root": "${NOT_SET_HERE}/x"},
        "data.root: the environment variable NOT_SET",
    ),
    "name": ({"name": "a/b"}, "name: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_name_file_and_key(tmp_path, case):
    changes, text = MISTAKES[case]
    path = write_config(tmp_path, tmp_path, **changes)
    with pytest.raises(typer.BadParameter) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_yaml(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(typer.BadParameter, match="line 1"):
        read_config(path)


def test_paths_take_variables_and_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))
    path = write_config(
        tmp_path, tmp_path, data__root="${SOMEWHERE}/data", network__weights="~/file.pth"
    )
    config = read_config(path)
    assert config.data.root == tmp_path / "data"
    assert config.network.weights == Path(os.path.expanduser("~/file.pth"))
    assert (
        read_config(write_config(tmp_path, tmp_path, network__weights="imagenet")).network.weights
        == "imagenet"
    )


def test_differences_leave_out_where_and_how_fast(tmp_path):
    one = read_config(write_config(tmp_path, tmp_path))
    two = read_config(
        write_config(tmp_path, tmp_path / "moved", data__workers=2, export__license="MIT")
    )
    assert differences(one, two) == []
    three = read_config(
        write_config(
            tmp_path,
            tmp_path,
            optimizer__lr=0.02,
            network__options={"encoder_depth": 4},
            losses=[{"kind": "dice"}],
        )
    )
    assert differences(one, three) == ["network.options", "losses", "optimizer.lr"]
