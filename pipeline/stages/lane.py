"""The GPU lane's stages: what a card resizes, segments and paints, without the picture leaving it.

`infer` sends pictures up and starts all of it, `colorize` waits for what comes down. They stand in
for the stages preprocess, infer and colorize of the CPU lane, follow the same two sampling rules
(pipeline/stages/geometry.py) and paint the same colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import cv2
import numpy as np

from engines.card import Card
from engines.cuda.kernels import Kernels, paint_table
from engines.cuda.lane import SLOTS, Form, Found, Lane, Paint, Surface, Task
from engines.cuda.network import DeviceEngine
from engines.cuda.picture import Format, Layout, NetworkInput, Placed
from engines.errors import PictureError
from engines.ring import Submission
from pipeline.card_planes import CARD_SAMPLES, CardPlanes
from pipeline.frame import Frame, Image
from pipeline.planes import Matrix, Planes, from_rgb, into_rgb
from pipeline.roles import Frames, Stage
from pipeline.stages.draw import line_width
from pipeline.stages.geometry import fill_color, window
from pipeline.stages.legend import Legend
from pipeline.stages.look import Controls, Look
from pipeline.stats import engine_wait


def lane_stages(
    engine: DeviceEngine,
    controls: Controls,
    *,
    batch: int = 1,
    labels: bool = True,
    stay: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Stage]:
    """The stages between source and sinks. `batch` is how many pictures go through the network
    together: a live source's wait for nobody, so 1. Without `labels` frames leave with none. With
    `stay` pictures that were decoded on the card are painted in place and stay there, for an
    encoder that takes them; otherwise they come down once they are painted.

    `say` is told what is not as fast as it could be. Raises EngineUnavailableError where the card's
    kernels can be neither found nor compiled.
    """
    with engine.device.current():
        Kernels(engine.device)  # who has no compiler is to hear of it now
    work = _Work(engine, controls, batch, labels, stay, say)
    return [
        Stage(
            "infer",
            work.infer,
            "the card is the limit: a smaller model or input, a larger --batch or a faster card "
            "raises the rate",
            ahead=max(1, SLOTS - 2) * batch,
            busy_s=lambda: work.busy_s,
        ),
        Stage(
            "colorize",
            lambda frames: _colorize(frames, engine.card, controls),
            "taking pictures from the card is the limit: smaller frames help",
        ),
    ]


class _Painting:
    """A frame's share of a submission: its picture to come."""

    def __init__(self, submission: Submission[Task, list[Found]], i: int, out: Any) -> None:
        self._submission, self._i = submission, i
        self._out: Image | Planes = out

    def result(self) -> tuple[Found, Image | Planes]:
        """Waits; class ids, and the picture, painted."""
        return self._submission.result()[self._i], self._out


class _Work:
    """Lanes, one after the other: another one for each form of picture."""

    def __init__(
        self,
        engine: DeviceEngine,
        controls: Controls,
        batch: int,
        labels: bool,
        stay: bool,
        say: Callable[[str], None],
    ) -> None:
        self._engine, self._controls, self._batch, self._labels = engine, controls, batch, labels
        self._stay, self._say = stay, say
        self._lane: Lane | None = None
        self._before_s = 0.0
        self._paints: dict[tuple[Look, Matrix | None, int], Paint] = {}

    @property
    def busy_s(self) -> float:
        """Seconds for which the card computed so far."""
        lane = self._lane
        return self._before_s + (lane.busy_s if lane is not None else 0.0)

    def infer(self, frames: Frames) -> Frames:
        """Sends pictures up and yields each frame with its picture under way."""
        shape: tuple[Any, ...] = ()
        try:
            for group in _groups(frames, self._batch):
                if _shape(group[0]) != shape:
                    shape = _shape(group[0])
                    self._close()
                    self._lane = self._open(group[0])
                assert self._lane is not None
                outs = [self._blank(frame.held_image) for frame in group]
                task = Task(
                    [_arrays(frame.held_image) for frame in group],
                    [_arrays(out) for out in outs],
                    self._paint(group[0].held_image),
                )
                submission = self._lane.submit(task)
                for i, frame in enumerate(group):
                    frame.pending = cast(Any, _Painting(submission, i, outs[i]))
                    yield frame
        finally:
            self._close()

    def _open(self, frame: Frame) -> Lane:
        image = frame.held_image
        height, width = image.shape[:2]
        gpu = self._engine.device.number
        if isinstance(image, CardPlanes) and image.gpu != gpu:
            raise PictureError(
                f"pictures lie on GPU {image.gpu} and the engine works on GPU {gpu}: decode there, "
                "or on the processor"
            )
        made: Format = "yuv420p" if isinstance(image, Planes) else "rgb24"
        given = made
        if isinstance(image, CardPlanes):
            given, made = CARD_SAMPLES, CARD_SAMPLES if self._stay else made
        want = self._engine.card.input
        inside = window(height, width, want)
        form = Form(
            Layout(given, height, width),
            Layout(made, height, width),
            NetworkInput(
                want.height,
                want.width,
                inside.top,
                inside.left,
                inside.height,
                inside.width,
                fill_color(want),
                want.sampling == "area",
            ),
            tuple(into_rgb(image.matrix).ravel().tolist()) if isinstance(image, Planes) else None,
            self._batch,
            self._labels,
        )
        return Lane(self._engine, form, self._paint(image), say=self._say)

    def _blank(self, image: Image | Planes) -> Image | Planes:
        """What takes the painted picture, of the same form."""
        if self._stay and isinstance(image, CardPlanes):
            return CardPlanes(image.video, image.matrix)
        if isinstance(image, Planes):
            return Planes.blank(*image.shape, image.matrix)
        return np.empty(image.shape, np.uint8)

    def _paint(self, image: Image | Planes) -> Paint:
        """How pictures such as this one are painted now; one object for as long as that holds."""
        look = self._controls.look
        matrix = image.matrix if isinstance(image, Planes) else None
        key = look, matrix, image.shape[0]
        if key not in self._paints:
            self._paints = {key: make_paint(self._engine.card, look, matrix, image.shape[0])}
        return self._paints[key]

    def _close(self) -> None:
        """Waits for what is in flight; frames still get their pictures."""
        if self._lane is not None:
            self._lane.close()
            lane, self._lane = self._lane, None
            self._before_s += lane.busy_s


def make_paint(card: Card, look: Look, matrix: Matrix | None, height: int) -> Paint:
    """A look as the card's kernel takes it, for pictures `height` pixels high, RGB or YUV of a
    matrix.
    """
    colors = card.colors
    if matrix is not None:
        colors = np.asarray(cv2.transform(colors[:, None], from_rgb(matrix)), np.uint8)[:, 0]
    painted = np.zeros(256, bool)
    painted[list(look.painted(card))] = True
    table = paint_table(colors, painted, look.overlay)
    return Paint(table, line_width(height) if look.contours else 0)


def _colorize(frames: Frames, card: Card, controls: Controls) -> Frames:
    legend, look = Legend(card), None
    for frame in frames:
        assert frame.pending is not None
        with engine_wait():
            found, picture = cast(_Painting, frame.pending).result()
        frame.pending, frame.labels = None, found.full
        if look is not controls.look:
            look = controls.look
            legend.name(look.painted(card))
        if look.legend:
            if isinstance(picture, CardPlanes):
                picture = picture.host  # where letters are drawn
            height, width = frame.held_image.shape[:2]
            where = window(height, width, card.input)
            small = found.small[where.top :, where.left :][: where.height, : where.width]
            legend.draw(picture, np.ascontiguousarray(small), still=bool(frame.name))
        frame.picture = cast(Any, picture)
        yield frame


def _groups(frames: Frames, most: int) -> Iterator[list[Frame]]:
    """Neighbours of one form, at most so many; no frame waits for others where that is 1."""
    group: list[Frame] = []
    for frame in frames:
        if group and _shape(frame) != _shape(group[0]):
            yield group
            group = []
        group.append(frame)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def _shape(frame: Frame) -> tuple[Any, ...]:
    image = frame.held_image
    return (*image.shape[:2], getattr(image, "matrix", None), type(image))


def _arrays(image: Image | Planes) -> tuple[Image, ...] | Surface:
    if isinstance(image, CardPlanes):
        layout = Layout(CARD_SAMPLES, *image.shape, image.pitch)
        return Surface(Placed(layout, image.address, image.chroma), image)
    return (image.y, image.u, image.v) if isinstance(image, Planes) else (image,)
