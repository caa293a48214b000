"""The GPU lane's stages beside the CPU lane's, on the host: the same labels and pictures."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.card import CardInput
from engines.cuda import kernels
from engines.errors import InferenceError
from engines.fake_engine import FakeEngine, fake_card
from pipeline.api import stages_for
from pipeline.frame import Frame
from pipeline.planes import Matrix, Planes
from pipeline.roles import chain
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource
from pipeline.stages import Controls, Look, colorize, infer, preprocess
from tests.engines.cuda.host_engine import HostEngine
from tests.planes import planes_of

pytestmark = pytest.mark.timeout(60)
FRAMES = sorted((Path(__file__).parents[2] / "engines" / "guard_frames").glob("*.jpg"))


@pytest.fixture
def machine(cuda, host_graph, host_nvcc):
    return cuda


class Real:
    """Real pictures of the sizes that are asked for, as RGB or as planes."""

    name, live = "real pictures", False

    def __init__(self, sizes, planes, again=1):
        self.sizes, self.planes, self.again = sizes, planes, again
        self.lost = {}

    def frames(self):
        for index in range(self.again * len(self.sizes)):
            height, width = self.sizes[index % len(self.sizes)]
            bgr = cv2.imread(str(FRAMES[index % len(FRAMES)]))
            rgb = cv2.cvtColor(cv2.resize(bgr, (width, height)), cv2.COLOR_BGR2RGB)
            frame = Frame(index, index, Fraction(1, 30), rgb)
            if self.planes:
                frame.image = planes_of(rgb, Matrix.BT601 if index % 2 else Matrix.BT709)
            yield frame


def card_of(height, width, aspect="stretch", sampling="bilinear"):
    card = fake_card(height, width)
    want = CardInput(**{**card.input.model_dump(), "aspect": aspect, "sampling": sampling})
    return card.model_copy(update={"input": want})


def cpu_stages(engine, look):
    return [preprocess(engine.card), infer(engine), colorize(engine.card, look)]


def held(frame):
    picture = frame.held_picture
    return (picture.y, picture.u, picture.v) if isinstance(picture, Planes) else (picture,)


LOOKS = [
    Look(),
    Look(overlay=0.8, contours=True),
    Look(overlay=0.0, contours=True, classes=(1, 2, 3)),
    Look(overlay=1.0, legend=True, classes=tuple(range(21))),
]


@pytest.mark.parametrize("planes", [True, False])
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("aspect", ["stretch", "keep"])
def test_frames_are_those_of_the_cpu_lane(machine, planes, look, aspect):
    card = card_of(97, 129, aspect)
    sizes = [(360, 640)] * 3 + [(240, 426), (64, 90)]
    with FakeEngine(card) as engine:
        wanted = list(chain(Real(sizes, planes), cpu_stages(engine, look)))
    stages = stages_for(HostEngine(machine, card), look)
    assert [stage.name for stage in stages] == ["infer", "colorize"]
    with Pipeline(Real(sizes, planes), stages) as pipeline:
        frames = list(pipeline)
    assert [f.index for f in frames] == [f.index for f in wanted]
    for mine, theirs in zip(frames, wanted, strict=True):
        same = mine.labels == theirs.labels
        assert same.mean() >= 0.995
        for one, two in zip(held(mine), held(theirs), strict=True):
            assert one.shape == two.shape
            off = np.abs(one.astype(int) - two)
            # Away from pixels whose class differs, and from their chroma's neighbours.
            near = cv2.dilate((~same).astype(np.uint8), np.ones((5, 5), np.uint8))
            near = cv2.resize(near, one.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
            assert off[~near].max() <= 2
    assert machine.live == 0


def test_order_count_and_batches_of_a_file(machine):
    card, dice = fake_card(18, 32), random.Random(5)
    engine = HostEngine(machine, card, batch=4, delay=lambda: dice.random() / 300)
    seen = []
    source = SyntheticSource(36, 64, 50)
    with Pipeline(source, stages_for(engine, labels=False)) as pipeline:
        for frame in pipeline:
            seen.append(frame.index)
            assert frame.labels is None
    assert seen == list(range(50))
    assert engine.runs == 13  # of four each; the last one holds two
    assert pipeline.ledger.delivered == 50


def test_no_frame_of_a_live_source_waits_for_others(machine):
    card = fake_card(18, 32)
    engine = HostEngine(machine, card, batch=8)
    source = SyntheticSource(36, 64, 12, fps=20, paced=True)
    with Pipeline(source, stages_for(engine, live=True)) as pipeline:
        for _ in pipeline:
            pass
    # While the lane is made newer ones may take the place of the first.
    assert pipeline.ledger.captured == 12
    assert engine.runs == pipeline.ledger.delivered >= 4
    # Far less than the 0.4 s that eight frames take to come.
    assert pipeline.latency.percentile_s(50) < 0.15


def test_a_look_that_changes_shows_at_once(machine):
    card, controls = fake_card(18, 32), Controls(Look(overlay=1.0, classes=tuple(range(21))))
    seen = []
    with Pipeline(
        SyntheticSource(36, 64, 60), stages_for(HostEngine(machine, card), controls), ahead=1
    ) as pipeline:
        for frame in pipeline:
            painted = card.colors[frame.labels]
            if np.abs(painted.astype(int) - frame.picture).max() <= 1:
                seen.append("all")
            elif (frame.picture == frame.image).all():
                seen.append("none")
            else:
                seen.append("?")
            if frame.index == 20:
                controls.change(overlay=0.0)
    assert seen[:21] == ["all"] * 21
    assert seen[-20:] == ["none"] * 20
    assert "?" not in seen


def test_an_error_on_the_card_stops_the_run_with_one_line(machine):
    card = fake_card(18, 32)
    engine = HostEngine(machine, card, fail_on={7})
    pipeline = Pipeline(SyntheticSource(36, 64, 30), stages_for(engine))
    with pytest.raises(InferenceError, match="run 7 was told to fail"):
        pipeline.run()
    assert machine.live == 0
    assert pipeline.ledger.unaccounted == 0
    assert pipeline.ledger.delivered <= 7


@pytest.mark.parametrize("seed", range(12))
def test_whatever_ends_a_run_everything_is_given_back(machine, host_graph, seed):
    rng, card = random.Random(seed), fake_card(18, 32)
    for _ in range(6):
        batch = rng.choice((1, 1, 3))
        fails = {rng.randrange(30)} if rng.random() < 0.4 else ()
        dice = random.Random(rng.random())
        engine = HostEngine(
            machine, card, batch=batch, fail_on=fails, delay=lambda dice=dice: dice.random() / 500
        )
        stop_at = rng.randrange(40) if rng.random() < 0.5 else None
        leave_at = rng.randrange(40) if rng.random() < 0.3 else None
        pipeline = Pipeline(SyntheticSource(36, 64, 40), stages_for(engine))
        try:
            with pipeline:
                for frame in pipeline:
                    if frame.index == stop_at:
                        pipeline.stop()
                    if frame.index == leave_at:
                        break
        except InferenceError:
            if not fails:
                raise
        assert pipeline.ledger.unaccounted == 0
        assert machine.live == host_graph.live == engine.contexts == 0


@pytest.mark.parametrize(
    ("more", "word"), [({"smooth": True}, "--smooth"), ({"every": 3}, "--every")]
)
def test_what_only_the_processor_can_is_said(machine, more, word):
    said = []
    stages = stages_for(HostEngine(machine, fake_card()), say=said.append, **more)
    assert [stage.name for stage in stages] == ["preprocess", "infer", "colorize"]
    assert len(said) == 1
    assert word in said[0]


def test_without_a_compiler_the_processor_paints_and_it_is_said(cuda, monkeypatch, tmp_path):
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "find_nvcc", lambda: None)
    said = []
    stages = stages_for(HostEngine(cuda, fake_card()), say=said.append)
    assert len(stages) == 3
    assert "nvcc" in said[0]


def test_the_cards_time_is_the_stages(machine):
    engine = HostEngine(machine, fake_card(18, 32), delay=lambda: 0.01)
    pipeline = Pipeline(SyntheticSource(36, 64, 20), stages_for(engine))
    pipeline.run()
    assert pipeline.bottleneck.stage == "infer"
    (row,) = [s for s in pipeline.stage_stats if s.name == "infer"]
    assert row.busy_s >= 0.2
