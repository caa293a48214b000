"""One picture of a video on its way through the stages."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.planes import Planes

if TYPE_CHECKING:  # the process that reads a live source has no use for engines
    from engines.engine import Pending

Image = NDArray[np.uint8]
T = TypeVar("T")


class _Rgb(Generic[T]):
    """A field that is set to RGB or to planes and always read as RGB, uint8 (H, W, 3).

    Planes are converted when somebody asks, and never where nobody does.
    """

    def __init__(self, *default: T) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._held = f"_{name}"

    def __get__(self, frame: Frame | None, owner: type) -> T:
        if frame is None:  # the dataclass asks for the default
            if not self._default:
                raise AttributeError("a frame has an image")
            return self._default[0]
        held = getattr(frame, self._held)
        return cast(T, frame._converted(held) if isinstance(held, Planes) else held)

    def __set__(self, frame: Frame, value: T | Planes) -> None:
        setattr(frame, self._held, value)


@dataclass(eq=False, repr=False)
class Frame:
    """A frame; each stage fills in a field. Whoever holds a frame owns its buffers, and putting it
    into a channel gives it away. Sinks share frames, so from there on they are read-only.

    `image` and `picture` may be set to `Planes` (YUV 4:2:0), which pass from decoder to encoder
    without a conversion; they read as RGB all the same. What is held is `held_image` and
    `held_picture`: code that can work on planes looks there, any other need not know of them.
    """

    index: int
    """Capture order from 0. A gap means that frames were dropped."""
    pts: int
    """Presentation time in units of `time_base`, exactly the container's."""
    time_base: Fraction
    """Seconds a unit of `pts`."""
    image: _Rgb[Image] = _Rgb()
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
    picture: _Rgb[Image | None] = _Rgb(None)
    """The coloured result, uint8 (H, W, 3) RGB."""
    shared: bool = False
    """Whether it has reached the sinks and the caller, who only read it."""

    @property
    def held_image(self) -> Image | Planes:
        """`image` in the form in which the frame has it."""
        return cast("Image | Planes", self.__dict__["_image"])

    @property
    def held_picture(self) -> Image | Planes | None:
        """`picture` in the form in which the frame has it."""
        return cast("Image | Planes | None", self.__dict__["_picture"])

    @property
    def time_s(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def _converted(self, planes: Planes) -> Any:
        """The planes as RGB, which takes their place while a stage has the frame, since who asks
        may write into it. Sinks leave the planes: what one of them asks for changes nothing for
        the others.
        """
        rgb = planes.rgb
        if not self.shared:
            for name in ("_image", "_picture"):
                if self.__dict__.get(name) is planes:
                    self.__dict__[name] = rgb
        return rgb
