"""Charts of a training's progress."""

import cv2
import pytest

pytest.importorskip("matplotlib")

from tools.train.curves import draw_curves


@pytest.mark.parametrize(
    "last", [{}, {"val_loss": 1.0, "val_miou": 0.2, "val_pixel_accuracy": 0.5}], ids=len
)
def test_before_and_after_the_first_validation(tmp_path, last):
    """matplotlib warns of a legend without lines; warnings are errors here."""
    rows = [{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.5, **last}]
    draw_curves(tmp_path / "curves.png", rows)
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 1
