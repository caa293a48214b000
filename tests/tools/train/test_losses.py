"""Each loss is its formula; the gradients point downhill; void counts nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from tools.errors import TrainError  # noqa: E402
from tools.train import losses  # noqa: E402
from tools.train.config import CrossEntropyConfig, DiceConfig, LovaszConfig  # noqa: E402

VOID = 255
CLASSES = 4


def batch(seed, *, void=0.2, present=CLASSES):
    """float64 logits (2, CLASSES, 5, 6) and ids with void, of the first `present` classes."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (2, CLASSES, 5, 6)))
    truth = rng.integers(0, present, (2, 5, 6))
    truth[rng.random(truth.shape) < void] = VOID
    return logits, torch.from_numpy(truth)


def flat(logits, truth):
    """Probabilities (pixels, classes) and ids (pixels,) of what is not void, as NumPy's."""
    p = logits.softmax(1).permute(0, 2, 3, 1).reshape(-1, CLASSES).numpy()
    t = truth.reshape(-1).numpy()
    return p[t != VOID], t[t != VOID]


seeds = st.integers(0, 2**32 - 1)
seen = st.integers(1, CLASSES)


@given(seeds, seen)
def test_cross_entropy(seed, present):
    logits, truth = batch(seed, present=present)
    p, t = flat(logits, truth)
    weights = np.array([1.0, 0.5, 2.0, 3.0])
    each = -np.log(p[np.arange(len(t)), t])
    assert float(losses.cross_entropy(logits, truth)) == pytest.approx(each.mean())
    found = losses.cross_entropy(logits, truth, torch.from_numpy(weights))
    assert float(found) == pytest.approx((each * weights[t]).sum() / weights[t].sum())
    smooth = 0.9 * each - 0.1 * np.log(p).mean(1)
    assert float(losses.cross_entropy(logits, truth, None, 0.1)) == pytest.approx(smooth.mean())


@given(seeds, st.sampled_from([0.0, 1.0, 2.0]))
def test_focal(seed, gamma):
    logits, truth = batch(seed)
    p, t = flat(logits, truth)
    right = p[np.arange(len(t)), t]
    each = -((1 - right) ** gamma) * np.log(right)
    assert float(losses.focal(logits, truth, gamma)) == pytest.approx(each.mean())
    weights = np.array([1.0, 0.5, 2.0, 3.0])
    found = losses.focal(logits, truth, gamma, torch.from_numpy(weights))
    assert float(found) == pytest.approx((each * weights[t]).sum() / weights[t].sum())


@given(seeds, seen)
def test_dice(seed, present):
    logits, truth = batch(seed, present=present)
    p, t = flat(logits, truth)
    each = [
        1 - 2 * p[t == c, c].sum() / (p[:, c].sum() + (t == c).sum())
        for c in range(CLASSES)
        if (t == c).any()
    ]
    assert float(losses.dice(logits, truth)) == pytest.approx(np.mean(each))


def naive_lovasz(p, t):
    """The extension of a set function by its definition (Berman et al. 2018, equation 8): the
    errors in falling order, each times what its pixel adds to 1 - IoU.
    """
    found = []
    for c in set(t.tolist()):
        errors = np.where(t == c, 1 - p[:, c], p[:, c])
        wrong = set()
        value, before = 0.0, 0.0
        for i in np.argsort(-errors, kind="stable"):
            wrong.add(i)
            true = {j for j in range(len(t)) if t[j] == c}
            loss = len(wrong) / len(true | wrong)
            value += errors[i] * (loss - before)
            before = loss
        found.append(value)
    return np.mean(found) if found else 0.0


@settings(max_examples=30)
@given(seeds, seen)
def test_lovasz(seed, present):
    logits, truth = batch(seed, present=present)
    assert float(losses.lovasz(logits, truth)) == pytest.approx(naive_lovasz(*flat(logits, truth)))


def test_lovasz_of_certain_answers_is_one_minus_iou():
    logits, truth = batch(3, void=0)
    answer = logits.argmax(1)
    certain = 100.0 * torch.nn.functional.one_hot(answer, CLASSES).permute(0, 3, 1, 2)
    a, t = answer.numpy(), truth.numpy()
    ious = [((a == c) & (t == c)).sum() / ((a == c) | (t == c)).sum() for c in range(CLASSES)]
    assert float(losses.lovasz(certain, truth)) == pytest.approx(1 - np.mean(ious))


def test_lovasz_stride_takes_the_middle_of_each_cell():
    logits, truth = batch(5)
    some = losses.lovasz(logits, truth, stride=3)
    assert some == losses.lovasz(logits[..., 1::3, 1::3], truth[..., 1::3, 1::3])


EVERY = (losses.cross_entropy, losses.focal, losses.dice, losses.lovasz)


@pytest.mark.parametrize("loss", EVERY)
def test_gradients_are_right(loss):
    logits, truth = batch(11)
    logits = logits[:1, :, :3, :3].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, truth[:1, :3, :3]), (logits,))


@pytest.mark.parametrize("loss", EVERY)
def test_void_pixels_count_nowhere(loss):
    logits, truth = batch(11)
    value = loss(logits, truth)
    changed = torch.where((truth == VOID).unsqueeze(1), logits + torch.randn_like(logits), logits)
    assert loss(changed, truth) == pytest.approx(float(value))


@pytest.mark.parametrize("loss", EVERY)
def test_a_batch_of_void_is_no_loss_and_no_gradient(loss):
    logits, truth = batch(0)
    logits.requires_grad_()
    value = loss(logits, torch.full_like(truth, VOID))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", EVERY)
def test_the_truth_itself_has_almost_no_loss(loss):
    _, truth = batch(0, void=0)
    certain = 50.0 * torch.nn.functional.one_hot(truth, CLASSES).permute(0, 3, 1, 2)
    assert float(loss(certain, truth)) == pytest.approx(0, abs=1e-6)


def test_weighted_sum():
    logits, truth = batch(1)
    logits = logits.float()
    configs = [
        CrossEntropyConfig(kind="cross_entropy", weight=0.5, class_weights="balanced"),
        LovaszConfig(kind="lovasz", weight=2.0),
        DiceConfig(kind="dice"),
    ]
    balanced = np.array([1.0, 2.0, 0.5, 1.0])
    found = losses.make_losses(configs, balanced, torch.device("cpu"))(logits, truth)
    weights = torch.tensor(balanced, dtype=torch.float32)
    assert found["cross_entropy"] == 0.5 * losses.cross_entropy(logits, truth, weights)
    assert found["lovasz"] == 2 * losses.lovasz(logits, truth)
    parts = float(found["cross_entropy"] + found["lovasz"] + found["dice"])
    assert float(found["total"]) == pytest.approx(parts)
    wrong = CrossEntropyConfig(kind="cross_entropy", class_weights=(1.0, 2.0))
    with pytest.raises(TrainError, match="2 class_weights for 4 classes"):
        losses.make_losses([wrong], balanced, torch.device("cpu"))


def test_balanced_weights_are_the_median_frequency_over_the_class_s_own():
    pixels = np.array([800, 150, 50, 0])
    around = np.array([1000, 500, 1000, 0])  # frequencies 0.8, 0.3, 0.05
    assert losses.balanced_weights(pixels, around) == pytest.approx([0.375, 1.0, 6.0, 0.0])
