"""CUDA graphs: what a stream does for a frame, captured once and replayed with one call.

PyCUDA has no graph API; cuda-bindings works on the handles of PyCUDA's streams.
"""

# mypy: disable-error-code="import-not-found, import-untyped, unused-ignore"

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from engines.errors import CaptureError, InferenceError, one_line

_alone = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """The block captures, or waits for a whole device, and nobody else in the process does either
    meanwhile: torch allows one capture at a time, and any thread's waiting for the device ends the
    captures of all. What Python's collector would free in the middle of one would end it, too.
    """
    with _alone:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()


class Graph:
    """A captured graph; call it to replay it on the stream that it was captured on.

    Made, called and freed while the device's context is current.
    """

    def __init__(self, stream: Any, work: Callable[[], None]) -> None:
        """Captures what `work` starts on the stream; none of it is executed.

        Only this thread's calls are watched meanwhile, so that others may go on allocating. Raises
        CaptureError, after which the stream can be used as before.
        """
        try:
            from cuda.bindings import driver
        except ImportError as error:
            raise _refused(
                f"cuda-bindings cannot be imported ({one_line(error)}); pip install cuda-bindings"
            ) from None
        self._driver: Any = driver
        self._stream = driver.CUstream(stream.handle)
        self._exec: Any = None
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._must(driver.cuStreamBeginCapture(self._stream, mode))
        try:
            work()
        except Exception as error:
            self._abandon()
            raise _refused(one_line(error) or type(error).__name__) from error
        except BaseException:  # Ctrl-C: a stream that is left capturing takes nothing any more
            self._abandon()
            raise
        graph = self._must(driver.cuStreamEndCapture(self._stream))
        try:
            self._exec = self._must(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def __call__(self) -> None:
        """Starts it; raises InferenceError."""
        (error,) = self._driver.cuGraphLaunch(self._exec, self._stream)
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise InferenceError(f"a CUDA graph could not be started: {_name(error)}")

    def free(self) -> None:
        """Frees it; it does not run any more."""
        if self._exec is not None:
            self._driver.cuGraphExecDestroy(self._exec)
            self._exec = None

    def _abandon(self) -> None:
        with suppress(Exception):
            _, graph = self._driver.cuStreamEndCapture(self._stream)
            if graph is not None:
                self._driver.cuGraphDestroy(graph)

    def _must(self, answer: tuple[Any, ...]) -> Any:
        """The value of a call of the driver's; raises CaptureError where it says no."""
        error, *values = answer
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise _refused(f"the driver says {_name(error)}")
        return values[0] if values else None


def _refused(why: str) -> CaptureError:
    return CaptureError(f"a CUDA graph could not be captured: {why}")


def _name(error: Any) -> str:
    return str(getattr(error, "name", error))
