"""One picture of a video on its way through the stages."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from engines.engine import Pending

Image = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Frame:
    """A frame; each stage fills in a field. Whoever holds a frame owns its buffers, and putting it
    into a channel gives it away. Sinks share frames, so from there on they are read-only.
    """

    index: int
    """Capture order from 0. A gap means that frames were dropped."""
    pts: int
    """Presentation time in units of `time_base`, exactly the container's."""
    time_base: Fraction
    """Seconds a unit of `pts`."""
    image: Image
    """The source's picture, uint8 (H, W, 3) RGB, upright."""
    captured_at: float = 0.0
    """When the source handed it over, monotonic seconds (time.perf_counter)."""
    duration: int = 0
    """How long it is shown, in units of `time_base`; 0 where the source does not say."""
    name: str = ""
    """The stem of the still image that it came from; empty for video."""
    tensor: Image | None = None
    """What the network gets, uint8 (1, height, width, 3) RGB at the network's size."""
    pending: Pending | None = None
    """The network's answer, under way."""
    smoothed: tuple[Image, Image] | None = None
    """Class ids before and after smoothing, uint8 (h, w) at the network's size, where it is on."""
    labels: Image | None = None
    """Class ids, uint8 (H, W), at the size of `image`."""
    picture: Image | None = None
    """The coloured result, uint8 (H, W, 3) RGB."""

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)
