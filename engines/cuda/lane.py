"""Frames on the card: up, resized, through the network, painted, and down again.

    with Lane(engine, form, paint) as lane:
        submission = lane.submit(Task(pictures, outs, paint))   # starts and returns
        labels = submission.result()                            # waits; `outs` are painted

A lane is a ring of slots, each with memory for everything that a batch needs on both sides of the
bus. Three streams, one a direction and one that computes, hand slots on by events, so that one
batch goes up while another is computed and a third comes down. What is computed for a slot is one
graph, captured once. Nothing is allocated for a frame; the host waits only for a finished slot.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cuda.graph import alone
from engines.cuda.kernels import Kernels
from engines.cuda.memory import Staging, copy_on_card
from engines.cuda.network import DeviceContext, DeviceEngine
from engines.cuda.picture import Layout, NetworkInput, Placed
from engines.engine import Labels
from engines.errors import CaptureError, EngineError, PictureError
from engines.ring import Ring

Planes = tuple[NDArray[np.uint8], ...]
"""A picture in the host's memory: the arrays that `Layout.planes` gives views of."""


@dataclass(frozen=True)
class Surface:
    """A picture on the card that somebody else owns: a decoder's, or one for an encoder."""

    placed: Placed
    owner: object
    """What keeps its memory alive."""


# One is filled by the host, one goes up, one is computed, one comes down or is emptied.
SLOTS = 4

# With fewer nothing goes up or down while another is computed.
_FEWEST = 2

# CU_STREAM_NON_BLOCKING of cuda.h, for which PyCUDA has no name: such a stream does not wait for
# the default one, whose use by anybody would end a capture, too.
_NON_BLOCKING = 1


@dataclass(frozen=True, eq=False)
class Paint:
    """How classes are painted. Two of them are the same only if they are one object."""

    table: NDArray[np.float32]
    """Colours and shares (`kernels.paint_table`)."""
    line: int = 0
    """Width of contours, pixels; 0 draws none."""


@dataclass(frozen=True)
class Form:
    """What all pictures of a lane have in common."""

    layout: Layout
    """Of the pictures in the lane's own memory; tight."""
    out: Layout
    """Of what they become, likewise; RGB if they are."""
    network: NetworkInput
    into_rgb: tuple[float, ...] | None = None
    """Of YUV: the 3 x 4 that makes R, G, B of Y, U, V, 1, row by row."""
    batch: int = 1
    """Pictures that go through the network together, at most."""
    labels: bool = True
    """Whether class ids are wanted at the pictures' size, too."""


@dataclass(frozen=True)
class Task:
    """Pictures for one slot."""

    pictures: Sequence[Planes | Surface]
    outs: Sequence[Planes | Surface]
    """Where the painted ones go, one for each."""
    paint: Paint


@dataclass(frozen=True)
class Found:
    """Class ids of one picture."""

    small: Labels
    """uint8 (h, w) at the network's size."""
    full: Labels | None
    """uint8 (H, W) at the picture's, where they were wanted."""


class Lane(Ring[Task, list[Found]]):
    """Segments and paints pictures of one form on an engine's card.

    Raises EngineUnavailableError where the kernels can be neither found nor compiled, EngineError
    where the card has no room. `say` is told if graphs are not used, and why.
    """

    def __init__(
        self,
        engine: DeviceEngine,
        form: Form,
        paint: Paint,
        *,
        slots: int = SLOTS,
        graphs: bool = True,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        import pycuda.driver as cuda

        self.form = form
        self.graphs = graphs
        """Whether graphs are used; no longer, once one could not be captured."""
        self._say = say
        self._shapes = [_shapes(layout) for layout in (form.layout, form.out)]
        self._device = engine.device
        self._counting = threading.Lock()
        self._ran_s = 0.0
        self._slots: list[_Slot] = []
        with self._device.current():
            try:
                self._kernels = Kernels(self._device)
                self._up, self._work, self._down = (cuda.Stream(_NON_BLOCKING) for _ in range(3))
                for number in range(slots):
                    try:
                        slot = _Slot(engine, self._kernels, form, paint, self._work)
                    except (EngineError, cuda.Error) as error:
                        if number < _FEWEST:
                            raise
                        say(f"note: the card has room for {number} batches at a time: {error}")
                        break
                    self._slots.append(slot)
                    self._prepare(slot, paint.line)
            except BaseException:
                self._let_go()
                raise
        super().__init__(engine.info.name, list(self._slots))

    @property
    def busy_s(self) -> float:
        """Seconds for which the card computed so far, by its own clock; copies are not counted."""
        with self._counting:
            return self._ran_s

    def _check(self, task: Task) -> None:
        form = self.form
        if not 1 <= len(task.pictures) <= form.batch or len(task.outs) != len(task.pictures):
            raise PictureError(f"a lane takes 1 to {form.batch} pictures, not {len(task.pictures)}")
        sides = zip((form.layout, form.out), self._shapes, (task.pictures, task.outs), strict=True)
        for layout, shapes, pictures in sides:
            want = layout.format, layout.height, layout.width
            for picture in pictures:
                if isinstance(picture, Surface):
                    its = picture.placed.layout
                    right = (its.format, its.height, its.width) == want
                else:
                    right = [plane.shape for plane in picture] == shapes
                if not right:
                    raise PictureError(f"a lane of {layout} takes planes of {shapes} only")

    def _start(self, slot: _Slot, task: Task) -> None:
        with self._device.current():
            try:
                self._prepare(slot, task.paint.line)
                slot.upload(task, self._up)
                self._work.wait_for_event(slot.uploaded)
                slot.begun.record(self._work)
                self._compute(slot, task.paint.line)
                slot.computed.record(self._work)
                self._down.wait_for_event(slot.computed)
                slot.download(self._down)
            except BaseException:
                # What was begun may still use the slot's memory; the next user must not write it.
                for stream in (self._up, self._work, self._down):
                    with suppress(Exception):
                        stream.synchronize()
                raise

    def _prepare(self, slot: _Slot, line: int) -> None:
        """Captures what a slot computes, for contours of a width that is new to it."""
        if not self.graphs or line in slot.graphs:
            return
        try:
            slot.capture(line)
        except CaptureError as error:
            self.graphs = False
            self._say(f"note: frames are started call by call: {error}")

    def _compute(self, slot: _Slot, line: int) -> None:
        """Starts the slot's work: the graph of it, or where there is none, the work itself."""
        if self.graphs:
            slot.graphs[line]()
        else:
            slot.compute(line)

    def _fetch(self, slot: _Slot) -> list[Found]:
        with self._device.current():
            slot.done.synchronize()
            seconds = slot.computed.time_since(slot.begun) / 1000
        with self._counting:
            self._ran_s += seconds
        return slot.empty()

    def _release(self) -> None:
        with self._device.current():
            self._let_go()

    def _let_go(self) -> None:
        """Frees everything; the device's context is current."""
        if hasattr(self, "_free"):
            self._free.clear()
        for stream in (getattr(self, name, None) for name in ("_up", "_work", "_down")):
            with suppress(Exception):  # it was never made, or the card is in error
                stream.synchronize()  # type: ignore[union-attr]
        for slot in self._slots:
            slot.free()
        self._slots.clear()
        self._up = self._work = self._down = self._kernels = None  # type: ignore[assignment]


class _Slot:
    """What one batch needs. Made, used and freed while the device's context is current."""

    def __init__(
        self, engine: DeviceEngine, kernels: Kernels, form: Form, paint: Paint, stream: Any
    ) -> None:
        import pycuda.driver as cuda

        self.graphs: dict[int, Callable[[], None]] = {}
        """What computes, by the width of contours, which is part of it."""
        self._form, self._kernels, self._stream = form, kernels, stream
        self._wears: Paint | None = None
        self._task: Task | None = None
        want, layout, most = form.network, form.layout, form.batch
        with ExitStack() as undo:

            def staging(*shape: int) -> Staging:
                made = Staging(shape)
                undo.callback(made.free)
                return made

            self.uploaded, self.begun, self.computed, self._lent = (cuda.Event() for _ in range(4))
            # A waiting thread sleeps instead of spinning on a core that decoding needs.
            self.done = cuda.Event(cuda.event_flags.BLOCKING_SYNC)
            self._table = staging(paint.table.nbytes)
            self._pictures = staging(most, layout.size)
            self._outs = staging(most, form.out.size)
            self._small = staging(most, want.height, want.width)
            self._full = staging(most, layout.height, layout.width) if form.labels else None
            self._tensor: Any = cuda.mem_alloc(most * want.height * want.width * 3)
            undo.callback(self._tensor.free)
            self.context: DeviceContext = engine.bind(int(self._tensor), self._small.address, most)
            undo.callback(self.context.free)
            # Before it can be captured all of it must have run once: that is when the driver loads
            # kernels and libraries set themselves up. On what is no picture yet, for nobody.
            with alone():
                self.compute(0)
                stream.synchronize()
            self._freeing = undo.pop_all()

    def capture(self, line: int) -> None:
        """Captures `compute`; raises CaptureError if twice that cannot be."""

        def once() -> Callable[[], None]:
            return self.context.capture(self._stream, lambda: self.compute(line))

        with alone():
            try:
                self.graphs[line] = once()
            except CaptureError:  # somebody may have waited for the whole device meanwhile
                self.graphs[line] = once()

    def upload(self, task: Task, stream: Any) -> None:
        """Starts the way up, after which `uploaded` comes to pass."""
        layout = self._form.layout
        self._task = task
        lent: list[tuple[int, Surface]] = []
        for i, picture in enumerate(task.pictures):
            if isinstance(picture, Surface):
                lent.append((i, picture))
                continue
            for plane, view in zip(picture, layout.planes(self._pictures.host[i]), strict=True):
                np.copyto(view, plane)
        if self._wears is not task.paint:
            np.copyto(self._table.host, task.paint.table.view(np.uint8).reshape(-1))
            self._table.upload(len(self._table.host), stream)
            self._wears = task.paint
        if len(lent) < len(task.pictures):
            self._pictures.upload(len(task.pictures), stream)
        if lent:
            # FFmpeg fills surfaces in the default stream, for which this one does not wait.
            self._lent.record()
            stream.wait_for_event(self._lent)
        for i, surface in lent:  # after the host's, whose block has nothing in their places
            copy_on_card(surface.placed, _placed(self._pictures, layout, i), stream)
        self.uploaded.record(stream)

    def compute(self, line: int) -> None:
        """Starts all that is computed. Always for a whole batch: a graph, and the state of the
        network's context that it relies on, are of one size; what is too much comes to nothing.
        """
        form, layout, want = self._form, self._form.layout, self._form.network
        pixels = want.height * want.width
        pictures = [_placed(self._pictures, layout, i) for i in range(form.batch)]
        for i, picture in enumerate(pictures):
            tensor = int(self._tensor) + i * pixels * 3
            self._kernels.resize(self._stream, picture, tensor, want, form.into_rgb)
        self.context.enqueue(form.batch, self._stream)
        for i, picture in enumerate(pictures):
            full = 0
            if self._full is not None:
                full = self._full.address + i * layout.height * layout.width
            self._kernels.paint(
                self._stream,
                picture,
                self._small.address + i * pixels,
                self._table.address,
                _placed(self._outs, form.out, i),
                full,
                want,
                line,
            )

    def download(self, stream: Any) -> None:
        """Starts the way down, after which `done` comes to pass."""
        assert self._task is not None
        outs, layout = self._task.outs, self._form.out
        for i, out in enumerate(outs):
            if isinstance(out, Surface):
                copy_on_card(_placed(self._outs, layout, i), out.placed, stream)
        hosted = not all(isinstance(out, Surface) for out in outs)
        for memory in (self._outs if hosted else None, self._small, self._full):
            if memory is not None:
                memory.download(len(outs), stream)
        self.done.record(stream)

    def empty(self) -> list[Found]:
        """Copies what has come down to where its owner wants it."""
        task, self._task = self._task, None
        assert task is not None
        found = []
        for i, out in enumerate(task.outs):
            if not isinstance(out, Surface):
                views = self._form.out.planes(self._outs.host[i])
                for plane, view in zip(out, views, strict=True):
                    np.copyto(plane, view)
            full = None if self._full is None else np.array(self._full.host[i])
            found.append(Found(np.array(self._small.host[i]), full))
        return found

    def free(self) -> None:
        """Frees all; after an error on the card, what can be freed."""
        self.graphs.clear()
        with suppress(Exception):
            self._freeing.close()
        self.uploaded = self.begun = self.computed = self._lent = self.done = None


def _placed(memory: Staging, layout: Layout, i: int) -> Placed:
    """Picture `i` of a batch that lies in memory, one behind the other."""
    return Placed(layout, memory.address + i * layout.size)


def _shapes(layout: Layout) -> list[tuple[int, ...]]:
    """Of the planes of a picture."""
    return [view.shape for view in layout.planes(np.empty(layout.size, np.uint8))]
