"""The flicker score tells changes of labels from motion, with motion that is known."""

import math

import cv2
import numpy as np
import pytest

from pipeline.flicker import Flicker


def texture(height, width, seed=0):
    """A picture that flow can follow: smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)


def scene(shift=0, height=120, width=160):
    """A picture with a square of class 3, moved to the right by `shift` pixels, both as one."""
    image = texture(height, width + 60)
    labels = np.zeros((height, width + 60), np.uint8)
    labels[40:80, 60:110] = 3
    part = np.s_[:, 40 - shift : 40 - shift + width]
    return np.ascontiguousarray(image[part]), np.ascontiguousarray(labels[part])


def score(frames):
    flicker = Flicker()
    for image, labels in frames:
        flicker.add(image, labels)
    return flicker


@pytest.mark.parametrize("step", [0, 1, 3, 6])
def test_labels_that_move_with_the_picture_do_not_flicker(step):
    flicker = score(scene(step * i) for i in range(5))
    assert flicker.pairs == 4
    assert flicker.cuts == 0
    assert flicker.score < 0.001


def test_labels_that_stay_while_the_picture_moves_flicker():
    still = scene()[1]
    flicker = score((scene(6 * i)[0], still) for i in range(5))
    # At both sides of the square 6 pixels are wrong, of which the 3x3 forgive one.
    assert flicker.score == pytest.approx(2 * 5 * 40 / (120 * 160), rel=0.2)


def test_the_share_of_pixels_that_change_is_the_score():
    image, labels = scene()
    other = labels.copy()
    other[90:110, 10:70] = 7
    flicker = score([(image, labels), (image, other), (image, labels), (image, labels)])
    # 7 comes, and 0 comes back where the 3x3 do not reach the 0 around it.
    assert flicker.score == pytest.approx(2 * 20 * 60 / (3 * 120 * 160), rel=0.1)


def test_a_jitter_of_one_pixel_is_forgiven():
    image, labels = scene()
    moved = np.roll(labels, 1, 1)
    assert score([(image, labels), (image, moved), (image, labels)]).score == 0


def test_a_cut_is_not_compared():
    image, labels = scene()
    other = texture(120, 160, seed=9)
    flicker = score(
        [(image, labels), (255 - image, 1 - labels % 2), (other, labels), (other, labels)]
    )
    assert flicker.cuts == 2
    assert flicker.pairs == 1
    assert flicker.score == 0


def test_sizes():
    flicker = Flicker()
    assert math.isnan(flicker.score)
    for height, width in ((120, 160), (60, 90), (1, 1), (1, 1), (8, 300), (8, 300)):
        flicker.add(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))
    assert flicker.pairs == 0
    large = cv2.resize(scene()[0], (1920, 1440))
    for labels in (0, 1, 0):
        flicker.add(large, np.full((1440, 1920), labels, np.uint8))
    assert flicker.pairs == 2
    assert flicker.score == 1
