"""The legend: names and colours of the classes that are, or just were, in the picture."""

from __future__ import annotations

from collections.abc import Collection

from engines.card import Card
from pipeline.frame import Image
from pipeline.planes import Planes
from pipeline.stages.draw import draw_legend, legend_extent
from pipeline.stages.geometry import present
from pipeline.stages.plane_brush import PlaneBrush, brush_for

# A class that leaves the picture stays for this many frames, so that a flickering class does not
# make the legend jump.
_FRAMES = 25


class Legend:
    """Draws legends from frame to frame; for one thread."""

    def __init__(self, card: Card) -> None:
        self._names, self._colors = card.classes, card.colors
        self._wanted: Collection[int] = ()
        self._left: dict[int, int] = {}
        """For how many frames each class still stays."""
        self._brush: PlaneBrush | None = None

    def name(self, classes: Collection[int]) -> None:
        """From now on only these ids are named."""
        self._wanted = frozenset(classes)
        self._left = {i: left for i, left in self._left.items() if i in self._wanted}

    def draw(self, picture: Image | Planes, labels: Image, still: bool = False) -> None:
        """Draws into uint8 (H, W, 3) RGB or planes the legend of contiguous uint8 ids of any size.

        A `still` has a legend of its own classes; a video's remembers those of the last second.
        """
        if still:
            self._left.clear()
        for class_id in present(labels):
            if class_id in self._wanted:
                self._left[class_id] = _FRAMES
        shown = sorted(self._left)
        names, colors = [self._names[i] for i in shown], self._colors[shown]
        if isinstance(picture, Planes):
            height = picture.shape[0]
            self._brush = brush_for(self._brush, self._colors, picture)
            bottom, right = legend_extent(names, height)
            self._brush.draw(
                picture, bottom, right, lambda part: draw_legend(part, names, colors, height)
            )
        else:
            draw_legend(picture, names, colors, picture.shape[0])
        self._left = {i: left - 1 for i, left in self._left.items() if left > 1}
