"""The kernels against the CPU lane on real frames: compiled for the host and, by `make test-gpu`,
for the card.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from engines.cuda.device import open_device
from engines.cuda.picture import Layout, NetworkInput, Placed
from pipeline.planes import Matrix
from pipeline.stages import Look
from pipeline.stages.colorize import Painter
from pipeline.stages.draw import line_width
from pipeline.stages.geometry import LabelScaler, to_network
from tests.engines.cuda.card import HostCard, network_input, table_of
from tests.networks import make_card
from tests.pipeline.test_geometry import blobs, label_scores
from tests.planes import planes_of

FRAMES = sorted((Path(__file__).parents[3] / "engines" / "guard_frames").glob("*.jpg"))
IDS = np.array([0, 3, 4, 7, 19], np.uint8)
CLASSES = 20
FORMATS = ("rgb24", "yuv420p", "nv12")
# A picture's height and width, and the network's: enlarged, shrunk, both, neither; odd, small, and
# no multiple of 4.
PAIRS = [
    ((360, 640), (256, 256)),
    ((360, 640), (129, 97)),
    ((360, 640), (90, 160)),
    ((360, 640), (64, 300)),
    ((180, 320), (360, 640)),
    ((180, 320), (180, 320)),
    ((270, 482), (135, 241)),
    ((270, 482), (129, 97)),
    ((101, 203), (256, 256)),
    ((101, 203), (64, 300)),
    ((94, 6), (90, 160)),
    ((94, 6), (1, 1)),
    ((9, 5), (64, 300)),
    ((2, 2), (129, 97)),
    ((2, 2), (1, 1)),
    ((1, 1), (90, 160)),
    ((1, 1), (1, 1)),
    ((1, 70), (256, 256)),
]


KINDS = ["host"]
if "STREAMSEG_GPU" in os.environ:
    KINDS.append(pytest.param("gpu", marks=pytest.mark.gpu))


@pytest.fixture(params=KINDS)
def card(request):
    """Kernels ready to run."""
    if request.param == "host":
        yield request.getfixturevalue("host_card")
        return
    import pycuda.driver

    device = open_device(0)
    with device.current():
        card = HostCard(SimpleNamespace(module=pycuda.driver), device)
        yield card
        card.free()


@cache
def real_frame(number):
    """uint8 (360, 640, 3) BGR."""
    return cv2.imread(str(FRAMES[number % len(FRAMES)]))


def frame(number, size):
    """uint8 (H, W, 3) RGB of a real frame."""
    small = cv2.resize(real_frame(number), size[::-1], interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small.reshape(*size, 3)[..., ::-1])


def labels_of(number, size, classes=5):
    """Labels at the network's size whose borders are those of a real frame's lights and shades."""
    gray = cv2.cvtColor(real_frame(number), cv2.COLOR_BGR2GRAY)
    gray = cv2.GaussianBlur(gray, (0, 0), 6)
    small = cv2.resize(gray, size[::-1], interpolation=cv2.INTER_AREA).reshape(size)
    return IDS[:classes][small.astype(int) * classes // 256]


def even(size):
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def samples(form, image):
    """The planes of a picture in a format."""
    if form == "rgb24":
        return [image]
    if form == "yuv420p":
        return [image.y, image.u, image.v]
    return [image.y, np.stack([image.u, image.v], -1)]


def picture(form, number, size, matrix=Matrix.BT709):
    """What the CPU lane has, and its layout with padded rows."""
    size = size if form == "rgb24" else even(size)
    image = frame(number, size)
    least = Layout(form, *size).pitch
    layout = Layout(form, *size, least + number % 3 * 6)
    return (image if form == "rgb24" else planes_of(image, matrix)), layout


def check_resize(card, form, number, size, wanted, aspect, sampling, matrix=Matrix.BT709):
    image, layout = picture(form, number, size, matrix)
    entry = make_card(*wanted, aspect=aspect, sampling=sampling, mean=(0.1, 0.5, 0.9)).input
    placed = card.place(layout, samples(form, image), chroma_apart=number % 2 and form != "rgb24")
    network = network_input(layout.height, layout.width, entry)
    got = card.resize(placed, network, None if form == "rgb24" else matrix)
    expected = to_network(image, entry)[0]
    card.free()
    return np.abs(got.astype(int) - expected)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("aspect", ["stretch", "keep"])
@pytest.mark.parametrize("sampling", ["bilinear", "area"])
def test_the_network_gets_the_bytes_of_the_cpu_lane(card, form, aspect, sampling):
    apart = []
    for number, (size, wanted) in enumerate(PAIRS):
        apart.append(check_resize(card, form, number, size, wanted, aspect, sampling))
        # Sums of area averages are rounded in another order: three planes, a level in each.
        assert apart[-1].max() <= (1 if form == "rgb24" or sampling == "bilinear" else 4)
    every = np.concatenate([a.reshape(-1) for a in apart])
    assert (every > 1).mean() <= 1e-4
    # OpenCV's bilinear arithmetic is followed to the bit; other builds of it may have another.
    assert (every > 0).mean() <= 0.002


@pytest.mark.parametrize("matrix", list(Matrix))
def test_colours_are_converted_by_the_pictures_matrix(card, matrix):
    apart = check_resize(card, "nv12", 0, (90, 160), (60, 60), "stretch", "bilinear", matrix)
    assert apart.max() <= 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(FORMATS),
    st.integers(0, 5),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["stretch", "keep"]),
    st.sampled_from(["bilinear", "area"]),
)
@example("rgb24", 0, (1, 70), (70, 1), "keep", "area")
@example("nv12", 1, (2, 70), (70, 2), "keep", "area")
def test_any_size_to_any_size(card, form, number, size, wanted, aspect, sampling):
    apart = check_resize(card, form, number, size, wanted, aspect, sampling)
    assert apart.max() <= (1 if form == "rgb24" or sampling == "bilinear" else 4)


def check_paint(card, form, number, size, wanted, aspect="stretch", look=None, classes=5, out=None):
    """Paints both ways; gives both lanes' labels and checks what is laid on them."""
    look = look or Look()
    image, layout = picture(form, number, size)
    out = Layout(out or form, layout.height, layout.width)
    config = make_card(*wanted, aspect=aspect, classes=CLASSES)
    labels = labels_of(number, wanted, classes)
    painted = range(1, CLASSES) if look.classes is None else look.classes
    matrix = None if form == "rgb24" else Matrix.BT709
    table = table_of(config.colors, painted, look.overlay, matrix)
    placed = card.place(layout, samples(form, image), chroma_apart=number % 2 and form != "rgb24")
    network = network_input(layout.height, layout.width, config.input)
    line = line_width(layout.height) if look.contours else 0
    got, ids = card.paint(placed, labels, table, out, network, line)
    # The CPU's brush on the same labels: what differs is the painting alone.
    expected = Painter(config, look).paint(image, ids)
    theirs = samples(out.format, expected)
    assert len(got) == len(theirs)
    # The brush rounds chroma at each of its steps; the kernel once.
    for most, mine, plane in zip((1, 2, 2), got, theirs, strict=False):
        assert np.abs(mine.astype(int) - plane).max() <= most
    card.free()
    return ids, LabelScaler()(labels, layout.height, layout.width, config.input)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("aspect", ["stretch", "keep"])
def test_labels_and_pictures_are_those_of_the_cpu_lane(card, form, aspect):
    differing = total = 0
    for number, (size, wanted) in enumerate(PAIRS):
        ids, expected = check_paint(card, form, number, size, wanted, aspect)
        differing += int((ids != expected).sum())
        total += ids.size
    assert differing <= 0.001 * total, f"{differing} of {total} labels"


@pytest.mark.parametrize("size", [(720, 1280), (1080, 1920)])
@pytest.mark.parametrize("classes", [2, 5])
def test_of_a_large_frame_a_thousandth_of_the_labels_differs_at_most(card, size, classes):
    for wanted in ((520, 520), (288, 512)):
        ids, expected = check_paint(card, "rgb24", 2, size, wanted, classes=classes)
        assert (ids != expected).mean() <= 0.001


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "look",
    [
        Look(0.3, tuple(range(CLASSES))),
        Look(1.0, (0, 7)),
        Look(contours=True),
        Look(0.7, (3, 4), contours=True),
        Look(0.0, contours=True),
        Look(0.0),
        Look(0.5, ()),
    ],
)
def test_looks(card, form, look):
    for number, (size, wanted) in enumerate(
        [((360, 640), (90, 160)), ((120, 162), (64, 64)), ((1080, 96), (65, 33))]
    ):
        check_paint(card, form, number, size, wanted, "keep", look)


def test_the_encoder_gets_nv12_of_a_decoders_planes(card):
    check_paint(card, "yuv420p", 1, (90, 162), (40, 40), out="nv12")
    check_paint(card, "nv12", 2, (90, 162), (40, 40), out="yuv420p", look=Look(contours=True))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(FORMATS),
    st.integers(0, 5),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from(["stretch", "keep"]),
    st.booleans(),
)
@example("rgb24", 0, (1, 70), (70, 1), "keep", True)
def test_any_labels_on_any_size(card, form, number, size, wanted, aspect, contours):
    check_paint(card, form, number, size, wanted, aspect, Look(contours=contours))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 8),
    st.booleans(),
    st.integers(0, 99),
)
@example((36, 40), (12, 20), 5, True, 0)
def test_rule_2_is_followed_exactly(card, size, wanted, classes, noise, seed):
    labels = blobs(wanted, classes, seed)
    if noise:  # up to 16 classes meet in a pixel
        labels = np.random.default_rng(seed).permutation(labels.reshape(-1)).reshape(wanted)
    layout = Layout("rgb24", *size)
    network = NetworkInput(*wanted, 0, 0, *wanted, (0, 0, 0))
    table = np.zeros((256, 4), np.float32)
    image = np.zeros((*size, 3), np.uint8)
    (same,), got = card.paint(card.place(layout, [image]), labels, table, layout, network)
    card.free()
    assert not same.any()
    ids, scores = label_scores(labels, size)
    if size == wanted:
        np.testing.assert_array_equal(got, labels)
    else:  # of those that are equal but for the floating point's last digits, the first
        np.testing.assert_array_equal(got, ids[(scores > scores.max(0) - 1e-9).argmax(0)])


def test_of_two_equal_masks_the_lower_id_wins(card):
    layout = Layout("rgb24", 2, 3)
    network = NetworkInput(2, 2, 0, 0, 2, 2, (0, 0, 0))
    table = np.zeros((256, 4), np.float32)
    for ids in ([9, 4], [4, 9], [0, 4], [4, 0]):
        _, got = card.paint(
            card.place(layout), np.array([ids] * 2, np.uint8), table, layout, network
        )
        assert got.tolist() == [[ids[0], min(ids), ids[1]]] * 2


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_may_be_painted_in_place(card, form):
    image, layout = picture(form, 1, (90, 158))
    labels, config = labels_of(1, (40, 40)), make_card(40, 40, classes=CLASSES)
    matrix = None if form == "rgb24" else Matrix.BT709
    table = table_of(config.colors, range(CLASSES), 0.5, matrix)
    network = network_input(90, 158, config.input)
    placed = card.place(layout, samples(form, image))
    expected, _ = card.paint(placed, labels, table, layout, network, 2)
    before = card.download(placed.address, layout.size)
    card.kernels.paint(
        card.stream,
        placed,
        card.upload(labels),
        card.upload(table),
        Placed(layout, placed.address),
        0,
        network,
        2,
    )
    after = card.download(placed.address, layout.size)
    assert (before != after).any()
    for mine, theirs in zip(layout.planes(after), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_the_kernels_cannot_do_is_refused(card):
    rgb, nv12 = Layout("rgb24", 4, 4), Layout("nv12", 4, 4)
    network = NetworkInput(4, 4, 0, 0, 4, 4, (0, 0, 0))

    def paint(picture, out, table=0):
        card.kernels.paint(card.stream, picture, 0, table, out, 0, network)

    with pytest.raises(ValueError, match="cannot be painted into"):
        paint(Placed(rgb, 1), Placed(nv12, 1000))
    with pytest.raises(ValueError, match="keeps its layout"):
        paint(Placed(nv12, 1), Placed(Layout("yuv420p", 4, 4), 1))
    with pytest.raises(ValueError, match="no multiple of 16"):
        paint(Placed(nv12, 1), Placed(nv12, 1), table=8)
    with pytest.raises(ValueError, match="matrix of 0"):
        card.kernels.resize(card.stream, Placed(nv12, 1), 1, network)
    with pytest.raises(ValueError, match="matrix of 12"):
        card.kernels.resize(card.stream, Placed(rgb, 1), 1, network, [0.0] * 12)
    with pytest.raises(ValueError, match="too large"):
        card.kernels.resize(card.stream, Placed(Layout("rgb24", 8192, 8192), 1), 1, network)
