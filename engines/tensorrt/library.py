"""TensorRT itself: importing it, its version, and what it has to say."""

from __future__ import annotations

from typing import Any

from engines.cuda.device import INSTALL
from engines.errors import EngineUnavailableError

# The first with set_tensor_address and execute_async_v3 and profile sharing is 8.6.
_LEAST = (8, 6)


def version() -> tuple[int, ...]:
    """TensorRT's version as numbers, for example (10, 13, 3, 9).

    Raises EngineUnavailableError where it cannot be imported or is older than 8.6.
    """
    try:
        import tensorrt as trt
    except ImportError as error:
        raise EngineUnavailableError(f"TensorRT cannot be imported ({error}); {INSTALL}") from None
    numbers = tuple(int(part) for part in trt.__version__.split(".") if part.isdigit())
    if numbers[:2] < _LEAST:
        raise EngineUnavailableError(
            f"TensorRT {trt.__version__} is too old; 8.6 is the oldest that works; {INSTALL}"
        )
    return numbers


def make_log() -> Any:
    """A trt.ILogger that keeps errors, of which `text()` tells, and prints nothing."""
    import tensorrt as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))
                del self.errors[:-_KEPT]

        def text(self) -> str:
            """The last error as one line; the one that TensorRT ends with names the cause."""
            return self.errors[-1][:300] if self.errors else "TensorRT did not say why"

    return Log()


# An error repeated for each of a million frames must not fill the memory.
_KEPT = 8
