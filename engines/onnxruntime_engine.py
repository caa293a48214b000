"""ONNX Runtime: a second, independent implementation on the CPU. Needs `streamseg[onnxruntime]`."""

from __future__ import annotations

import platform
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from engines.card import Card
from engines.cores import available_cores
from engines.engine import EngineInfo, Labels, Pictures, RingEngine
from engines.errors import EngineUnavailableError, ModelError
from engines.graph import LABELS, PICTURES


class OnnxRuntimeEngine(RingEngine):
    """A wrapped graph (engines/graph.py) in one session; one run a core at a time."""

    def __init__(
        self,
        graph: bytes,
        card: Card,
        *,
        precision: str = "auto",
        batch: int = 1,
        why: str = "",
        refine: str = "none",
    ) -> None:
        try:
            import onnxruntime as ort
        except ImportError:
            raise EngineUnavailableError(
                "ONNX Runtime is not installed; pip install 'streamseg[onnxruntime]'"
            ) from None
        if precision not in ("auto", "fp32"):
            raise EngineUnavailableError(
                f"ONNX Runtime computes in the network's own types here; {precision} needs a "
                "network exported in it (use --precision auto)"
            )
        options = ort.SessionOptions()
        # Pictures side by side beat threads inside one picture, as with OpenVINO's streams.
        parallel = available_cores()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no public base
            raise ModelError(
                f"ONNX Runtime cannot run {card.name}: {' '.join(str(error).split())[-300:]}"
            ) from None
        fixed = self._session.get_inputs()[0].shape[0]
        if isinstance(fixed, int) and (fixed, batch) != (1, 1):
            raise ModelError(
                f"{card.name} takes exactly {fixed} pictures at a time, not 1..{batch}; export it "
                "with a free batch, or run it on OpenVINO with batch 1"
            )
        self._pool = ThreadPoolExecutor(parallel, thread_name_prefix="onnxruntime")
        self._runs: dict[int, Future[tuple[Labels, float]]] = {}
        info = EngineInfo(
            name="onnxruntime",
            precision="int8" if card.is_int8 else "fp32",
            version=ort.__version__,
            device=f"CPU ({platform.processor() or platform.machine()})",
            why=why,
            refine=refine,
        )
        super().__init__(card, info, list(range(2 * parallel)), batch=batch, parallel=parallel)

    def _start(self, slot: int, pictures: Pictures) -> None:
        self._runs[slot] = self._pool.submit(self._run, pictures)

    def _run(self, pictures: Pictures) -> tuple[Labels, float]:
        begun = time.perf_counter()
        (labels,) = self._session.run([LABELS], {PICTURES: pictures})
        return np.asarray(labels), time.perf_counter() - begun

    def _finish(self, slot: int) -> tuple[Labels, float]:
        return self._runs[slot].result()

    def _release(self) -> None:
        self._pool.shutdown()
