"""How training pictures are varied: torchvision's transforms, and two of our own.

All of them take and give `tv_tensors`: an Image, uint8 (3, H, W) RGB, and a Mask, uint8 (H, W) ids.
They draw from torch's generator, which `Samples` seeds for each picture by itself.
"""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from engines.card import CardInput
from pipeline.stages.geometry import fill_color, window
from tools.data.labelled import VOID
from tools.errors import TrainError
from tools.train.config import AugmentConfig

# Where blur is on: kernel and sigma in pixels, of a slight defocus.
_BLUR_KERNEL = 5
_BLUR_SIGMA = (0.3, 1.5)

# Every which pixel, down and across, is looked at to tell how much of a class a crop shows.
_COUNT_EVERY = 4

# NTSC's luma and two chroma axes in R, G and B; a gray has no chroma.
_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def make_augmentation(
    config: AugmentConfig, want: CardInput, classes: Sequence[str] = ()
) -> v2.Transform:
    """From pictures of any size to varied ones of `config.crop`, or else of the network's size.

    Raises TrainError where `config.focus` names a class that is not among `classes`.
    """
    if unknown := [name for name in config.focus if name not in classes]:
        raise TrainError(
            f"augment.focus: there is no class {unknown[0]!r}; there are {', '.join(classes)}"
        )
    focus = [classes.index(name) for name in config.focus]
    fill = fill_color(want)
    crop = config.crop or (want.height, want.width)
    steps: list[Any] = [ScaledCrop(crop, config.scale, want, focus)]
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if config.rotate:
        outside = {tv_tensors.Image: fill, tv_tensors.Mask: VOID}
        steps.append(v2.RandomRotation(config.rotate, InterpolationMode.BILINEAR, fill=outside))
    if any((config.brightness, config.contrast, config.saturation, config.hue)):
        steps.append(Colors(config))
    if config.blur:
        blur = v2.GaussianBlur(_BLUR_KERNEL, _BLUR_SIGMA)
        steps.append(v2.RandomApply([blur], config.blur))
    return v2.Compose(steps)


class ScaledCrop(v2.Transform):
    """A random part of the picture at a random scale, in a single resize.

    At scale 1 a pixel is as large as in the pictures that the network gets when it runs. Only the
    part that the crop shows is resized, so the cost is that of the crop, whatever the scale. What
    lies outside of the picture is the card's mean in the picture and void in the mask.

    With ids in `focus`, half of the crops are the best of three: the one that shows most of them.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        scale: tuple[float, float],
        want: CardInput,
        focus: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.crop, self.scale, self.want = crop, scale, want
        self.fill = fill_color(want)
        self.focus = torch.tensor(focus, dtype=torch.uint8)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the part of the picture, (top, left, height, width), and its place in the crop."""
        height, width = flat_inputs[0].shape[-2:]
        inside = window(height, width, self.want)
        lowest, highest = map(math.log, self.scale)
        scale = math.exp(float(torch.empty(1).uniform_(lowest, highest)))

        def draw() -> dict[str, Any]:
            down = _place(height, self.crop[0], scale * inside.height / height)
            across = _place(width, self.crop[1], scale * inside.width / width)
            return {"down": down, "across": across}

        def shown(params: dict[str, Any]) -> int:
            (top, h, _, _), (left, w, _, _) = params["down"], params["across"]
            part = mask[top : top + h : _COUNT_EVERY, left : left + w : _COUNT_EVERY]
            return int(torch.isin(part, self.focus).sum())

        if not len(self.focus) or torch.rand(()) < 0.5:
            return draw()
        mask = next(x for x in flat_inputs if isinstance(x, tv_tensors.Mask))
        return max((draw() for _ in range(3)), key=shown)

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


class Colors(v2.Transform):
    """Brightness, contrast, saturation and hue, each by a random factor, in one pass.

    The four, applied one after the other as torchvision's ColorJitter has them, are a 3x3 matrix
    and an offset together: a tenth of the time, and nothing is rounded or cut off between them. Hue
    turns the colours about the gray axis in YIQ.
    """

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the factors; 1 (for hue, 0) changes nothing."""
        config = self.config
        reach = torch.tensor([config.brightness, config.contrast, config.saturation, config.hue])
        drawn = (reach * (2 * torch.rand(4) - 1)).tolist()
        return {"factors": [1 + drawn[0], 1 + drawn[1], 1 + drawn[2], drawn[3]]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Image -> Image; a Mask stays as it is."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        brightness, contrast, saturation, hue = params["factors"]
        pixels = inpt.as_subclass(torch.Tensor).reshape(3, -1).float()
        luma = _YIQ[0]
        matrix = saturation * torch.eye(3) + (1 - saturation) * luma.expand(3, 3)
        if hue:
            cos, sin = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
            turn = torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
            matrix = torch.linalg.inv(_YIQ) @ turn @ _YIQ @ matrix
        # Contrast pulls towards the mean gray, which saturation and hue leave where it is.
        gray = brightness * (luma @ pixels.mean(1)) * (1 - contrast)
        changed = torch.addmm(gray.expand(3, 1), brightness * contrast * matrix, pixels)
        out = changed.clamp_(0, 255).round_().to(torch.uint8).reshape(inpt.shape)
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
