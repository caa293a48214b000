"""A contact sheet: what the network will be shown, for a look before hours of work."""

# mypy: disable-error-code="import-not-found, unused-ignore"

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from engines.palette import colors
from pipeline.frame import Image
from pipeline.sinks.destination import disk_errors
from pipeline.sinks.images import write_whole
from tools.data.labelled import VOID
from tools.train.samples import Samples

_ROWS, _COLUMNS = 4, 4
# Of one picture on the sheet, pixels.
_WIDTH = 320
_OVERLAY = 0.6


def draw_sheet(path: Path, samples: Samples) -> None:
    """Writes a PNG of varied pictures of the first epoch, each beside itself with its mask painted;
    void is white.
    """
    count = len(samples.pictures)
    dataset = samples.pictures.dataset
    table = colors(dataset.palette, len(dataset.classes))
    table[VOID] = 255
    tiles = []
    shown = _ROWS * _COLUMNS
    for i in range(shown):
        # Evenly over the data set; a small one again, as other epochs will show it.
        key = (1, i * count // shown) if count >= shown else (1 + i // count, i % count)
        picture, mask = samples[key]
        image = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        painted = cv2.addWeighted(image, 1 - _OVERLAY, table[mask.numpy()], _OVERLAY, 0)
        tiles.append(_fit(np.hstack([image, painted])))
    sheet = np.vstack([np.hstack(tiles[r : r + _COLUMNS]) for r in range(0, len(tiles), _COLUMNS)])
    done, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    assert done
    with disk_errors(path):
        write_whole(path, data.tobytes())


def _fit(pair: Image) -> Image:
    height, width = pair.shape[:2]
    size = (2 * _WIDTH, max(1, round(height * 2 * _WIDTH / width)))
    return np.asarray(cv2.resize(pair, size, interpolation=cv2.INTER_AREA), np.uint8)
