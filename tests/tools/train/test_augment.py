"""Augmentation keeps picture and mask together, and follows from the seed alone."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from engines.card import CardInput  # noqa: E402
from pipeline.stages.geometry import to_network  # noqa: E402
from tests.tools.labelled import save_pairs, scene  # noqa: E402
from tools.data.layouts import open_dataset  # noqa: E402
from tools.data.survey import survey  # noqa: E402
from tools.errors import TrainError  # noqa: E402
from tools.train.augment import Colors, ScaledCrop, make_augmentation  # noqa: E402
from tools.train.config import AugmentConfig  # noqa: E402
from tools.train.samples import Batches, Samples, make_loader  # noqa: E402

VOID = 255
WANT = CardInput(height=48, width=64, mean=(0.5, 0.4, 0.3), std=(1, 1, 1), color="rgb")


def tensors(image, ids):
    return (
        tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1)),
        tv_tensors.Mask(torch.from_numpy(ids)),
    )


def gradient(height=60, width=80):
    """A picture whose red is the row and whose green the column, and ids that are the row / 10."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, np.full_like(y, 200)], 2).astype(np.uint8)
    return image, (y // 10).astype(np.uint8)


def test_scale_one_is_the_picture_that_the_network_gets():
    image, ids = scene(1, height=60, width=80)
    picture, mask = ScaledCrop((48, 64), (1.0, 1.0), WANT)(*tensors(image, ids))
    expected = to_network(image, WANT.model_copy(update={"sampling": "area"}))[0]
    difference = np.abs(picture.permute(1, 2, 0).numpy().astype(int) - expected)
    assert difference.mean() < 3  # antialiased bilinear against area
    y, x = (np.arange(48) + 0.5) * 60 // 48, (np.arange(64) + 0.5) * 80 // 64
    assert np.array_equal(mask.numpy(), ids[np.ix_(y.astype(int), x.astype(int))])


@pytest.mark.parametrize("scale", [0.4, 0.8, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("crop", [(48, 64), (32, 32), (64, 96)])
def test_picture_and_mask_stay_together(scale, crop):
    image, ids = gradient()
    step = ScaledCrop(crop, (scale, scale), WANT)
    for seed in range(5):
        torch.manual_seed(seed)
        picture, mask = step(*tensors(image, ids))
        assert picture.shape == (3, *crop)
        assert picture.dtype == mask.dtype == torch.uint8
        inside = mask != VOID
        rows = picture[0].float()
        # The mask is the row in tens, and resampling moves it by less than one row at scale 1.
        off = (rows - mask.float() * 10)[inside]
        assert off.min() > -2 / scale - 1
        assert off.max() < 10 + 2 / scale + 1
        fill = torch.tensor([128, 102, 76], dtype=torch.uint8)
        assert (picture[:, ~inside] == fill[:, None]).all()
        shown = min(1.0, crop[0] / (48 * scale)) * min(1.0, crop[1] / (64 * scale))
        area = shown * 48 * 64 * scale**2
        assert inside.sum() == pytest.approx(area, rel=0.1)


def test_crops_reach_every_part():
    image, ids = gradient()
    step = ScaledCrop((24, 32), (1.0, 1.0), WANT)
    corners = [step(*tensors(image, ids))[0][:2, 0, 0] for _ in range(200)]
    rows, columns = torch.stack(corners).float().T
    assert rows.min() < 2
    assert rows.max() > 27
    assert columns.min() < 2
    assert columns.max() > 37


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation", "hue"])
def test_colours_are_torchvision_s(kind):
    """Each by itself; hue is turned about the gray axis and not in HSV, so its own rules hold."""
    config = AugmentConfig(**{"brightness": 0, "contrast": 0, "saturation": 0, kind: 0.4})
    image = tv_tensors.Image(torch.from_numpy(scene(2)[0]).permute(2, 0, 1))
    step = Colors(config)
    functional = getattr(v2.functional, f"adjust_{kind}")
    for seed in range(5):
        torch.manual_seed(seed)
        found = step(image).float()
        torch.manual_seed(seed)
        factors = step.make_params([image])["factors"]
        at = ["brightness", "contrast", "saturation", "hue"].index(kind)
        if kind == "hue":
            luma = torch.tensor([0.299, 0.587, 0.114])
            grays = image[:, image.float().std(0) < 4].float()
            assert grays.shape[1] > 20
            moved = found[:, image.float().std(0) < 4] - grays
            assert moved.abs().mean() < 6  # a gray has no hue to turn
            inside = (found.min(0).values > 0) & (found.max(0).values < 255)
            before, after = (torch.einsum("c,chw->hw", luma, x.float()) for x in (image, found))
            assert (before - after)[inside].abs().max() < 1.5
        else:
            assert (found - functional(image, factors[at]).float()).abs().max() <= 2


@pytest.fixture
def samples(tmp_path):
    dataset = open_dataset(save_pairs(tmp_path, train=6), "pairs", "train")
    _, pictures = survey(dataset, keep=True)
    config = AugmentConfig(rotate=10, hue=0.1, blur=0.5)
    return Samples(pictures, make_augmentation(config, WANT), seed=1)


def test_a_sample_follows_from_seed_epoch_and_picture(samples):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    once = samples[(3, 2)]
    assert torch.equal(torch.get_rng_state(), before)  # others' random numbers are left alone
    for _ in range(3):
        samples[(1, 1)]
    again = samples[(3, 2)]
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(once[0], samples[(4, 2)][0])
    assert not torch.equal(once[0], Samples(samples.pictures, samples.augment, 2)[(3, 2)][0])
    values = set(np.unique(once[1].numpy()))
    assert values <= {0, 1, 2, 3, VOID}


def test_workers_give_the_same_batches(samples):
    def all_of(workers):
        batches = Batches(6, 2, 1, 0, 1)
        batches.epoch = 4
        return list(make_loader(samples, batches, workers, torch.device("cpu")))

    for one, two in zip(all_of(0), all_of(2), strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def test_processes_share_every_batch_out():
    def keys(rank, ranks, epoch):
        batches = Batches(11, 2, 7, rank, ranks)
        batches.epoch = epoch
        return list(batches)

    one, two = keys(0, 2, 1), keys(1, 2, 1)
    assert len(one) == len(two) == 2
    together = [key for batch in one + two for key in batch]
    assert len(set(together)) == 8
    assert {epoch for epoch, _ in together} == {1}
    alone = [key for batch in keys(0, 1, 1) for key in batch]
    assert set(together) == set(alone[:8])
    assert keys(0, 2, 2) != [[(2, i) for _, i in batch] for batch in one]


def test_half_of_the_crops_favour_rare_classes():
    image, ids = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
    ids[20:28, 40:48] = 1
    shares = {}
    for focus in ((), (1,)):
        torch.manual_seed(0)
        step = ScaledCrop((16, 16), (1.0, 1.0), WANT, focus)
        masks = [step(*tensors(image, ids))[1] for _ in range(600)]
        shares[focus] = np.mean([bool((mask == 1).any()) for mask in masks])
    once = shares[()]
    # Half of them have three tries.
    assert shares[(1,)] == pytest.approx(once / 2 + (1 - (1 - once) ** 3) / 2, abs=0.06)
    assert shares[(1,)] > 1.3 * once


def test_focus_names_classes_that_there_are():
    config = AugmentConfig(focus=("red", "pole"))
    with pytest.raises(TrainError, match=r"augment.focus: there is no class 'pole'.*red, green"):
        make_augmentation(config, WANT, ("red", "green"))
