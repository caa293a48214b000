from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import yaml

from engines.card import Card, check_sha256, read_card
from engines.errors import CardError
from engines.model import find_model, shipped_models
from tests import networks

GOOD: dict[str, Any] = {
    "name": "mine",
    "input": {
        "height": 12,
        "width": 16,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
        "color": "rgb",
    },
    "classes": ["background", "cat", "dog"],
}


def write(path, **changes):
    """GOOD with `changes`; a key with two underscores is one of input's, None removes it."""
    data = {**GOOD, "input": dict(GOOD["input"])}
    for key, value in changes.items():
        part, name = (data["input"], key[7:]) if key.startswith("input__") else (data, key)
        part[name] = value
        if value is None:
            del part[name]
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_a_card_with_only_what_it_needs(tmp_path):
    card = read_card(write(tmp_path / "card.yaml"))
    assert (card.name, card.input.height, card.input.width) == ("mine", 12, 16)
    assert (card.input.layout, card.input.aspect, card.input.sampling) == (
        "nchw",
        "stretch",
        "bilinear",
    )
    assert card.output.name is None
    assert card.classes == ("background", "cat", "dog")
    assert card.colors[1].tolist() == [128, 0, 0]
    assert not card.colors[3:].any()


MISTAKES = {
    "no name": ({"name": None}, "name"),
    "empty name": ({"name": ""}, "name"),
    "a number as name": ({"name": 5}, "name"),
    "no input": ({"input": None}, "input"),
    "no height": ({"input__height": None}, "input.height"),
    "height 0": ({"input__height": 0}, "input.height"),
    "height of a hall": ({"input__height": 20000}, "input.height"),
    "width -1": ({"input__width": -1}, "input.width"),
    "width in words": ({"input__width": "wide"}, "input.width"),
    "width and a half": ({"input__width": 16.5}, "input.width"),
    "no mean": ({"input__mean": None}, "input.mean"),
    "two means": ({"input__mean": [0.5, 0.5]}, "mean has 2 values; color rgb needs 3"),
    "three means for gray": ({"input__color": "gray"}, "mean has 3 values; color gray needs 1"),
    "std 0": ({"input__std": [0.2, 0, 0.2]}, "std must be above 0"),
    "std below 0": ({"input__std": [0.2, -1, 0.2]}, "std must be above 0"),
    "std not a number": ({"input__std": [0.2, float("nan"), 0.2]}, "input.std"),
    "std without end": ({"input__std": [0.2, float("inf"), 0.2]}, "input.std"),
    "mean not a number": ({"input__mean": [0.2, float("nan"), 0.2]}, "input.mean"),
    "yuv": ({"input__color": "yuv"}, "input.color"),
    "hwcn": ({"input__layout": "hwcn"}, "input.layout"),
    "lanczos": ({"input__sampling": "lanczos"}, "input.sampling"),
    "crop": ({"input__aspect": "crop"}, "input.aspect"),
    "a misspelt key": ({"licence": "MIT"}, "licence"),
    "a misspelt key of input": ({"input__hight": 12}, "input.hight"),
    "no classes": ({"classes": None}, "classes"),
    "one class": ({"classes": ["all"]}, "classes"),
    "257 classes": ({"classes": [f"c{i}" for i in range(257)]}, "classes"),
    "a class twice": ({"classes": ["cat", "dog", "cat"]}, "classes names cat twice"),
    "yes as a class": ({"classes": ["background", True]}, "classes"),
    "an unknown palette": ({"palette": "rainbow"}, "'rainbow'.*allowed: voc"),
    "a short palette": ({"palette": [[0, 0, 0]]}, "1 colours for 3 classes"),
    "a bad colour": ({"palette": [[0, 0, 0], [1, 2, 3], [0, 0, 300]]}, "colour 2"),
    "a short sum": ({"sha256": "abc"}, "sha256"),
    "a sum in capitals": ({"sha256": "A" * 64}, "sha256"),
    "an output that is a list": ({"output": ["scores"]}, "output"),
    "metrics that are none": ({"metrics": "good"}, "metrics"),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_told_with_its_file_and_key(tmp_path, what):
    changes, message = MISTAKES[what]
    path = write(tmp_path / "wrong.yaml", **changes)
    with pytest.raises(CardError, match=message) as caught:
        read_card(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_mistake_is_told_at_once(tmp_path):
    path = write(tmp_path / "wrong.yaml", name="", input__height=0, classes=["one"])
    with pytest.raises(CardError) as caught:
        read_card(path)
    assert all(key in str(caught.value) for key in ("name:", "input.height:", "classes:"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no keys"),
        (b"- a\n- b\n", "holds no keys"),
        (b"just words", "holds no keys"),
        (b"name: [", "is not YAML"),
        (b"a: b: c", "is not YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"!!python/object/apply:os.getcwd []", "is not YAML"),
        (b"1: 2\n", "wrong.yaml"),
    ],
)
def test_a_file_that_is_no_card_is_refused(tmp_path, data, message):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(data)
    with pytest.raises(CardError, match=message) as caught:
        read_card(path)
    assert str(path) in str(caught.value)


def test_a_missing_card_is_told_which_keys_one_needs(tmp_path):
    with pytest.raises(CardError, match=r"needs the keys name, input .*classes"):
        read_card(tmp_path / "none.yaml")


def test_a_folder_is_no_card(tmp_path):
    with pytest.raises(CardError, match="cannot be read"):
        read_card(tmp_path)


def test_the_sum_of_another_file_is_refused(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"weights")
    right, wrong = hashlib.sha256(b"weights").hexdigest(), hashlib.sha256(b"others").hexdigest()
    check_sha256(Card.model_validate(GOOD), path)
    check_sha256(Card.model_validate({**GOOD, "sha256": right}), path)
    with pytest.raises(CardError, match=f"{wrong[:12]}.*{right[:12]}") as caught:
        check_sha256(Card.model_validate({**GOOD, "sha256": wrong}), path)
    assert str(path) in str(caught.value)


def test_a_model_whose_card_has_another_sum_is_not_found(tmp_path):
    card = networks.make_card()
    path = networks.save(tmp_path, networks.red_levels(), card)
    assert find_model(path).card == card
    wrong = card.model_copy(update={"sha256": "0" * 64})
    networks.save(tmp_path, networks.red_levels(), wrong)
    with pytest.raises(CardError, match="sha256"):
        find_model(path)


def test_class_names_and_numbers_become_ids():
    card = Card.model_validate({**GOOD, "classes": ["background", "2", "dog"]})
    assert card.class_ids(["dog", "background"]) == [2, 0]
    assert card.class_ids(["1"]) == [1]
    assert card.class_ids(["2"]) == [1]  # a name goes before a number
    assert card.class_ids([]) == []


@pytest.mark.parametrize("name", ["horse", "3", "-1", "1.0", "", "Dog"])
def test_an_unknown_class_is_named_with_those_there_are(name):
    with pytest.raises(CardError, match=f"'{name}'.*background, cat, dog"):
        Card.model_validate(GOOD).class_ids([name])


def test_background_is_found_by_name():
    assert Card.model_validate(GOOD).background == 0
    assert Card.model_validate({**GOOD, "classes": ["sky", "background"]}).background == 1
    assert Card.model_validate({**GOOD, "classes": ["sky", "road"]}).background is None


def test_a_card_of_256_classes_has_a_colour_for_each():
    card = networks.make_card(classes=256)
    assert len(np.unique(card.colors, axis=0)) == 256


def test_every_shipped_model_has_its_card_and_file():
    assert "voc" in shipped_models()
    for name, path in shipped_models().items():
        assert read_card(path).name == name
        assert find_model(name).file.is_file()
