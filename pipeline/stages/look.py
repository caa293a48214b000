"""How labels are painted, and the handle by which viewers change that while frames flow."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

from engines.card import Card


@dataclass(frozen=True)
class Look:
    """How labels are painted over the picture."""

    overlay: float = 0.5
    """Strength of the colours: 0 leaves the picture, 1 hides it."""
    classes: tuple[int, ...] | None = None
    """Ids that are painted; None means all but the background."""
    legend: bool = False
    contours: bool = False

    def painted(self, card: Card) -> tuple[int, ...]:
        """The ids that this look paints of a card's classes."""
        if self.classes is not None:
            return self.classes
        return tuple(i for i in range(len(card.classes)) if i != card.background)


class Controls:
    """The look of the frames that are painted next. Any thread reads and changes it."""

    def __init__(self, look: Look | None = None) -> None:
        self._look = look or Look()
        self._lock = threading.Lock()

    @property
    def look(self) -> Look:
        return self._look

    def change(self, **fields: Any) -> Look:
        """Replaces these fields of the look and returns the new one.

        Two viewers that change different fields at once both get their wish.
        """
        with self._lock:
            self._look = replace(self._look, **fields)
            return self._look
