"""What is to be measured: every combination once, and clear words for what none could have."""

from __future__ import annotations

import re

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from engines.choose import ENGINES, PRECISIONS
from engines.errors import EngineError
from tests.networks import make_card, network, random_layer, save
from tools.bench.plan import (
    PARTS,
    Case,
    make_cases,
    model_of,
    parse_batch,
    parse_parts,
    parse_rates,
    split,
)
from tools.config import size_option

pytestmark = pytest.mark.timeout(30)

names = st.text("abcdefgh/._-", min_size=1, max_size=8).filter(lambda t: t.strip())
sides = st.integers(1, 16384)


@given(
    st.lists(names, max_size=3),
    st.lists(st.tuples(sides, sides), max_size=3),
    st.lists(st.integers(1, 1024), max_size=3),
    st.lists(st.sampled_from(["auto", *ENGINES]), max_size=3),
    st.lists(st.sampled_from(PRECISIONS), max_size=3),
    st.booleans(),
)
def test_every_combination_comes_once(models, sizes, batches, engines, precisions, joined):
    texts = [models, [f"{h}x{w}" for h, w in sizes], [str(b) for b in batches], engines, precisions]
    given_ = [[", ".join(values)] if joined else values for values in texts]
    cases = make_cases(*given_)
    wanted = {
        Case(m, s, b, e, p)
        for m in models or ["voc"]
        for s in sizes or [None]
        for b in batches or [1]
        for e in engines or ["auto"]
        for p in precisions or ["auto"]
    }
    assert len(cases) == len(wanted)
    assert set(cases) == wanted


@given(sides, sides)
def test_a_size_is_height_x_width(height, width):
    assert size_option(f"{height}x{width}") == (height, width)


@given(st.text("0123456789x-+. e", max_size=8))
def test_what_is_no_size_is_refused(text):
    good = re.fullmatch(r"\d{1,5}x\d{1,5}", text)
    if good and all(1 <= int(side) <= 16384 for side in text.split("x")):
        assert size_option(text)
    else:
        with pytest.raises(typer.BadParameter, match="height x width"):
            size_option(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1025", "", "٣"])
def test_what_is_no_batch_is_refused(text):
    with pytest.raises(typer.BadParameter, match="--batch is a number of pictures"):
        parse_batch(text)


def test_rates_ascend_and_come_once():
    assert parse_rates(["30,10", "10", "59.94"]) == [10, 30, 59.94]
    for text in ("0", "-1", "nan", "inf", "fast", "0.5", "1001"):
        with pytest.raises(typer.BadParameter, match="--rates"):
            parse_rates([text])


def test_parts_keep_their_order_and_default_to_all():
    assert parse_parts([]) == list(PARTS)
    assert parse_parts(["peak,engine"]) == ["engine", "peak"]
    with pytest.raises(typer.BadParameter, match="engine, synthetic, file, live, peak"):
        parse_parts(["everything"])


def test_unknown_engines_and_precisions_are_refused_before_anything_runs():
    with pytest.raises(typer.BadParameter, match="--engine is one of auto, tensorrt"):
        make_cases([], [], [], ["cuda"], [])
    with pytest.raises(typer.BadParameter, match="--precision is one of auto, fp32"):
        make_cases([], [], [], [], ["int4"])


@given(st.lists(st.text("ab, ", max_size=6)))
def test_splitting_leaves_no_empty_words(values):
    parts = split(values)
    assert all(part and part == part.strip() and "," not in part for part in parts)
    assert "".join(parts).replace(" ", "") == re.sub(r"[, ]", "", "".join(values))


def test_a_size_makes_a_card_of_that_size_and_leaves_the_file_alone(tmp_path, rng):
    path = save(tmp_path, network(random_layer(rng, 3, 4)), make_card())
    plain = model_of(Case(str(path), None, 1, "auto", "auto"), None, "official")
    other = model_of(Case(str(path), (20, 28), 1, "auto", "auto"), None, "official")
    assert (plain.card.input.height, plain.card.input.width) == (12, 16)
    assert (other.card.input.height, other.card.input.width) == (20, 28)
    assert other.file == plain.file == path
    assert other.card.classes == plain.card.classes


def test_an_unknown_model_is_an_error_of_its_case():
    with pytest.raises(EngineError, match="unknown"):
        model_of(Case("nonesuch", None, 1, "auto", "auto"), None, "official")
