"""Which precision OpenVINO computes a network in on this CPU, where nobody asks for one.

OpenVINO's own answer is bf16 wherever the CPU has instructions for it. Whether that is faster
depends on the CPU and on the network: `voc` has run 1.8 times as fast as in fp32 on one processor,
and 0.67 times on another that has AVX512-BF16 without AMX. So both are tried once, and the answer
is kept.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.properties.hint as hints

from engines.cache import write_atomically

# Rounds in turn, of which each one's best counts: others on the machine only ever slow one down.
_ROUNDS = 8

# fp32 gives the figures that a model's card states; a little speed is not worth other ones.
_WORTH = 1.1


def faster_precision(
    core: ov.Core, model: ov.Model, device: str, settings: dict[str, Any], folder: Path | None
) -> ov.Type:
    """OpenVINO's own choice for the device, or fp32 where that is hardly slower on this network.

    model: ready to compile, one uint8 input. folder: where the answer is kept, if anywhere.
    """
    own: ov.Type = core.get_property(device, hints.inference_precision())
    if own == ov.Type.f32 or not device.startswith("CPU"):
        return own
    kept = folder / f"{_key(core, model, device)}.precision" if folder is not None else None
    if kept is not None:
        with suppress(OSError, KeyError):
            return {"fp32": ov.Type.f32, "own": own}[kept.read_text(encoding="utf-8")]
    best = _best_times(core, model, device, settings, (ov.Type.f32, own))
    answer = "own" if best[0] > _WORTH * best[1] else "fp32"
    if kept is not None:
        with suppress(OSError):  # a full disk costs the next start some time, not this one
            write_atomically(kept, answer.encode())
    return own if answer == "own" else ov.Type.f32


def _best_times(
    core: ov.Core,
    model: ov.Model,
    device: str,
    settings: dict[str, Any],
    kinds: tuple[ov.Type, ...],
) -> list[float]:
    """Seconds that a picture takes in each precision, at best."""
    requests = []
    for kind in kinds:
        chosen = {**settings, hints.inference_precision(): kind}
        compiled = core.compile_model(model, device, chosen)
        request = compiled.create_infer_request()
        shape = [d.get_max_length() for d in compiled.input(0).partial_shape]
        noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        request.set_input_tensor(ov.Tensor(noise))
        request.infer()
        requests.append(request)
    times: list[list[float]] = [[] for _ in kinds]
    for _ in range(_ROUNDS):
        for taken, request in zip(times, requests, strict=True):
            began = time.perf_counter()
            request.infer()
            taken.append(time.perf_counter() - began)
    return [min(taken) for taken in times]


def _key(core: ov.Core, model: ov.Model, device: str) -> str:
    """The network's operations, the processor and OpenVINO; weights do not change the time."""
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    name = core.get_property(device, "FULL_DEVICE_NAME")
    key = hashlib.sha256(f"{ov.__version__} {name} {able}".encode())
    for op in model.get_ordered_ops():
        shapes = [str(output.get_partial_shape()) for output in op.outputs()]
        key.update(f"{op.get_type_name()} {shapes}".encode())
    return key.hexdigest()[:32]
