"""OpenVINO: the default engine, fast on any CPU, and on Intel's GPUs and NPUs by name."""

# ruff: noqa: E402 - what stands before an import must happen before it
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

# OpenVINO reports each import to its maker over the network, if its telemetry package is there.
# Nobody who segments a video has asked for that; without the package it goes without saying.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov
import openvino.properties as props
import openvino.properties.hint as hints

from engines.card import Card
from engines.engine import EngineInfo, Labels, Pictures, RingEngine
from engines.errors import EngineUnavailableError, ModelError
from engines.openvino_precision import faster_precision

PRECISIONS = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "fp16": ov.Type.f16}
_NAMES = {kind: name for name, kind in PRECISIONS.items()}


def available_devices() -> dict[str, str]:
    """Device name (`CPU`, `GPU.0`, ...) -> what it is."""
    core = ov.Core()
    return {
        d: str(core.get_property(d, "FULL_DEVICE_NAME")).strip() for d in core.available_devices
    }


def available_precisions(device: str = "CPU") -> list[str]:
    """What the device computes in natively, slowest first; fp32 always."""
    able = ov.Core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    return ["fp32", *(p for p in ("fp16", "bf16") if p.upper() in able)]


def default_precision(device: str = "CPU") -> str:
    """What the device computes in when nobody asks for anything else, for people."""
    kind = ov.Core().get_property(device, hints.inference_precision())
    own = _NAMES.get(kind, str(kind))
    tried = device.startswith("CPU") and own != "fp32"
    return f"fp32 or {own}, in which the model runs faster" if tried else own


class OpenVinoEngine(RingEngine):
    """A wrapped graph (engines/graph.py) compiled for throughput.

    Two requests a stream are in flight: one at work, one ready, so that a stream never waits for
    Python between two pictures.
    """

    def __init__(
        self,
        graph: bytes,
        card: Card,
        *,
        device: str = "CPU",
        precision: str = "auto",
        batch: int = 1,
        why: str = "",
        cache: Path | None = None,
        refine: str = "none",
    ) -> None:
        core = ov.Core()
        _check_device(core, device)
        settings: dict[str, Any] = {hints.performance_mode(): hints.PerformanceMode.THROUGHPUT}
        if precision != "auto":
            _check_precision(device, precision)
            settings[hints.inference_precision()] = PRECISIONS[precision]
        if cache is not None:
            settings[props.cache_dir()] = str(cache)
        try:
            model = core.read_model(graph)
            # A fixed batch lets every operator plan its memory once; a bounded one costs speed.
            size = ov.Dimension(1) if batch == 1 else ov.Dimension(1, batch)
            h, w = card.input.height, card.input.width
            fixed = model.input(0).partial_shape[0]
            if batch > 1 and fixed.is_static:
                raise ModelError(
                    f"{card.name} takes exactly {fixed.get_length()} pictures at a time, not "
                    f"1..{batch}; export it with a free batch, or ask for batch 1"
                )
            model.reshape(ov.PartialShape([size, h, w, 3]))
            if precision == "auto":
                chosen = faster_precision(core, model, device, settings, cache)
                settings[hints.inference_precision()] = chosen
            self._compiled = core.compile_model(model, device, settings)
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO cannot run {card.name}: {' '.join(str(error).split())[-300:]}"
            ) from None
        streams = max(1, int(self._compiled.get_property(props.num_streams())))
        requests = [self._compiled.create_infer_request() for _ in range(2 * streams)]
        kind = self._compiled.get_property(hints.inference_precision())
        info = EngineInfo(
            name="openvino",
            precision="int8" if card.is_int8 else _NAMES.get(kind, str(kind)),
            version=str(ov.__version__).split("-")[0],
            device=f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')})".replace("  ", " "),
            why=why,
            refine=refine,
        )
        super().__init__(card, info, requests, batch=batch, parallel=streams)

    def _start(self, slot: ov.InferRequest, pictures: Pictures) -> None:
        # OpenVINO shares no array that it could not write to; of a read-only one it gets a copy.
        slot.set_input_tensor(ov.Tensor(pictures, shared_memory=pictures.flags.writeable))
        slot.start_async()

    def _finish(self, slot: ov.InferRequest) -> tuple[Labels, float]:
        slot.wait()
        # The request's own output is overwritten by its next run.
        return np.array(slot.get_output_tensor().data), slot.latency / 1000.0

    def _release(self) -> None:
        self._free.clear()
        del self._compiled


def _check_device(core: ov.Core, device: str) -> None:
    have = core.available_devices
    if device not in have and device.split(".")[0] not in have:
        raise EngineUnavailableError(
            f"OpenVINO has no device {device!r} here; it has: {', '.join(have)}"
        )


def _check_precision(device: str, precision: str) -> None:
    able = available_precisions(device)
    if precision not in able:
        raise EngineUnavailableError(
            f"{device} does not compute in {precision} with OpenVINO; it does in: "
            f"{', '.join(able)} (auto picks the best)"
        )
