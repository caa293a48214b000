"""`--device` with several GPUs: all of them, or some by their numbers."""

from __future__ import annotations

from engines.cuda.device import count_devices
from engines.errors import EngineUnavailableError

ALL = "all"


def names_several(device: str | None) -> bool:
    """Whether that is more than one engine's device."""
    return device is not None and (device == ALL or "," in device)


def spread(device: str | None, sources: int) -> list[str | None]:
    """The device of each engine that so many sources share, one after the other; no more of them
    than sources. Raises EngineUnavailableError.
    """
    if device is None or not names_several(device):
        return [device]
    if device == ALL:
        numbers = [str(i) for i in range(count_devices())]
        if not numbers:
            raise EngineUnavailableError("--device all is for NVIDIA GPUs, and CUDA sees none here")
    else:
        numbers = [part.strip() for part in device.split(",")]
        if not all(n.isdecimal() for n in numbers) or len(set(numbers)) != len(numbers):
            raise EngineUnavailableError(
                f"--device {device!r}: several are given by the numbers of NVIDIA GPUs, each once, "
                "such as 0,1; or as all"
            )
    return [*numbers[:sources]]
