"""How training pictures are varied: torchvision's transforms, and one of our own for size.

All of them take and give `tv_tensors`: an Image, uint8 (3, H, W) RGB, and a Mask, uint8 (H, W) ids.
They draw from torch's generator, which `Samples` seeds for each picture by itself.
"""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from engines.card import CardInput
from pipeline.stages.geometry import fill_color, window
from tools.data.labelled import VOID
from tools.train.config import AugmentConfig

# Where blur is on: kernel and sigma in pixels, of a slight defocus.
_BLUR_KERNEL = 5
_BLUR_SIGMA = (0.3, 1.5)


def make_augmentation(config: AugmentConfig, want: CardInput) -> v2.Transform:
    """From pictures of any size to varied ones of `config.crop`, or else of the network's size."""
    fill = fill_color(want)
    crop = config.crop or (want.height, want.width)
    steps: list[Any] = [ScaledCrop(crop, config.scale, want)]
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if config.rotate:
        outside = {tv_tensors.Image: fill, tv_tensors.Mask: VOID}
        steps.append(v2.RandomRotation(config.rotate, InterpolationMode.BILINEAR, fill=outside))
    jitter = (config.brightness, config.contrast, config.saturation, config.hue)
    if any(jitter):
        # 0 would still cost the time of each step.
        steps.append(v2.ColorJitter(*(value or None for value in jitter)))
    if config.blur:
        blur = v2.GaussianBlur(_BLUR_KERNEL, _BLUR_SIGMA)
        steps.append(v2.RandomApply([blur], config.blur))
    return v2.Compose(steps)


class ScaledCrop(v2.Transform):
    """A random part of the picture at a random scale, in a single resize.

    At scale 1 a pixel is as large as in the pictures that the network gets when it runs. Only the
    part that the crop shows is resized, so the cost is that of the crop, whatever the scale. What
    lies outside of the picture is the card's mean in the picture and void in the mask.
    """

    def __init__(self, crop: tuple[int, int], scale: tuple[float, float], want: CardInput) -> None:
        super().__init__()
        self.crop, self.scale, self.want = crop, scale, want
        self.fill = fill_color(want)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the part of the picture, (top, left, height, width), and its place in the crop."""
        height, width = flat_inputs[0].shape[-2:]
        inside = window(height, width, self.want)
        scale = float(torch.empty(1).uniform_(*self.scale))
        down = _place(height, self.crop[0], scale * inside.height / height)
        across = _place(width, self.crop[1], scale * inside.width / width)
        return {"down": down, "across": across}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cuts, resizes and fills: Image bilinear and antialiased, Mask nearest."""
        (top, height, y, h), (left, width, x, w) = params["down"], params["across"]
        part = inpt[..., top : top + height, left : left + width]
        if isinstance(inpt, tv_tensors.Mask):
            # Not torchvision's: its nearest neighbour lies half a pixel off, to the upper left.
            small = functional.interpolate(part[None, None], (h, w), mode="nearest-exact")[0, 0]
            out = inpt.new_full(self.crop, VOID)
        else:
            small = v2.functional.resize(part, [h, w], antialias=True)
            out = torch.empty((3, *self.crop), dtype=torch.uint8)
            if (h, w) != self.crop:
                out[:] = torch.tensor(self.fill, dtype=torch.uint8)[:, None, None]
        out[..., y : y + h, x : x + w] = small
        return tv_tensors.wrap(out, like=inpt)


def _place(length: int, crop: int, factor: float) -> tuple[int, int, int, int]:
    """Along one side: (start, length) of the part in the picture, (start, length) in the crop."""
    whole = max(1, round(length * factor))
    if whole <= crop:
        return 0, length, _draw(crop - whole), whole
    part = min(length, max(1, round(crop / factor)))
    return _draw(length - part), part, 0, crop


def _draw(highest: int) -> int:
    """0 .. highest, each as likely."""
    return int(torch.randint(highest + 1, ()))
