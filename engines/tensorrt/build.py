"""From a wrapped ONNX graph to a plan.

TensorRT 10 and 11 take the graph as strongly typed: what is FP16 in it is computed in FP16. 8.6
has no such mode for ONNX and needs to be allowed FP16; its tactics are limited to convolutions,
which are all that these networks need, so that cuBLAS and cuDNN need not be there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from engines.cuda.device import Device
from engines.errors import BuildStoppedError, EngineUnavailableError, PlanError
from engines.graph import PICTURES
from engines.tensorrt.library import make_log, version
from engines.tensorrt.options import PlanOptions

# Told the phase and the share of it that is done, 0..1, None where nobody knows; it answers whether
# to go on. Called from threads of TensorRT's.
Watch = Callable[[str, "float | None"], bool]


def build_plan(
    graph: bytes,
    options: PlanOptions,
    device: Device,
    *,
    timing: bytes = b"",
    watch: Watch = lambda phase, share: True,
) -> tuple[bytes, bytes]:
    """The plan of a graph that engines/graph.py wrapped, and the timing cache that grew with it.

    `timing` is an earlier cache: kernels measured once for this GPU and TensorRT need not be again.
    The build runs in a thread of its own, so that a signal reaches the caller meanwhile. Raises
    PlanError with TensorRT's own words, BuildStoppedError when `watch` said no.
    """
    numbers = version()
    if options.precision == "bf16" and numbers[0] < 10:
        raise EngineUnavailableError("bf16 needs TensorRT 10 or newer; use --precision fp16")
    watch("starting", None)

    def work() -> tuple[bytes, bytes]:
        with device.current():
            return _build(graph, options, numbers, timing, watch)

    return _in_thread(work)


def _build(
    graph: bytes, options: PlanOptions, numbers: tuple[int, ...], timing: bytes, watch: Watch
) -> tuple[bytes, bytes]:
    import tensorrt as trt

    log = make_log()
    try:
        builder = trt.Builder(log)
        flags = trt.NetworkDefinitionCreationFlag
        kind = flags.EXPLICIT_BATCH if numbers[0] < 10 else flags.STRONGLY_TYPED
        network = builder.create_network(1 << int(kind))
        parser = trt.OnnxParser(network, log)
        parsed: Any = parser.parse(graph)
        if not parsed:
            faults = [parser.get_error(i).desc() for i in range(parser.num_errors)]
            line = " ".join((faults[0] if faults else log.text()).split())[:300]
            raise PlanError(f"TensorRT {trt.__version__} cannot take this network: {line}")
        config = builder.create_builder_config()
        _configure(config, options, numbers)
        _set_batches(builder, config, network.get_input(0), options)
        cache = config.create_timing_cache(timing)
        # A cache of another GPU is refused; an empty one costs time and is right.
        fits: Any = config.set_timing_cache(cache, False)
        if not fits:
            config.set_timing_cache(config.create_timing_cache(b""), False)
        stopped = threading.Event()
        if numbers[0] >= 10:
            config.progress_monitor = _make_monitor(watch, stopped)
        watch("building", None)
        plan: Any = builder.build_serialized_network(network, config)
        if plan is None and stopped.is_set():
            raise BuildStoppedError("the build was stopped; nothing was kept")
        if plan is None:
            raise PlanError(f"TensorRT {trt.__version__} built no plan: {log.text()}")
        return bytes(plan), bytes(config.get_timing_cache().serialize())
    except (RuntimeError, TypeError) as error:  # what its bindings raise, for want of memory too
        said = log.text() if log.errors else " ".join(str(error).split())[:300]
        raise PlanError(f"TensorRT {trt.__version__} failed: {said}") from error


def _configure(config: Any, options: PlanOptions, numbers: tuple[int, ...]) -> None:
    import tensorrt as trt

    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization
    if numbers[0] < 10:
        if options.precision == "fp16":
            config.set_flag(trt.BuilderFlag.FP16)
        if options.precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
        sources = trt.TacticSource
        config.set_tactic_sources(
            1 << int(sources.EDGE_MASK_CONVOLUTIONS) | 1 << int(sources.JIT_CONVOLUTIONS)
        )
        # Several contexts run one profile side by side; from 10 on they may by themselves.
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    if options.precision == "fp32":
        # TF32 rounds like FP16; who asks for FP32 means it.
        config.clear_flag(trt.BuilderFlag.TF32)
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _set_batches(builder: Any, config: Any, pictures: Any, options: PlanOptions) -> None:
    """One profile from the smallest to the largest batch, where the network leaves it free."""
    shape = tuple(pictures.shape)
    if shape[0] == -1:
        profile = builder.create_optimization_profile()
        batches = (options.batch_min, options.batch, options.batch_max)
        profile.set_shape(PICTURES, *((n, *shape[1:]) for n in batches))
        config.add_optimization_profile(profile)
    elif (shape[0], options.batch_max) != (1, 1):
        raise PlanError(
            f"this network takes exactly {shape[0]} pictures at a time, not "
            f"{options.batch_min}..{options.batch_max}; export it with a free batch"
        )


def _make_monitor(watch: Watch, stopped: threading.Event) -> Any:
    """TensorRT's progress as (phase, share); phases lie in each other, so shares do too."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._lock = threading.Lock()
            self._phases: dict[str, tuple[str | None, int, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases[phase_name] = (parent_phase, num_steps, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                if phase_name in self._phases:
                    parent, steps, _ = self._phases[phase_name]
                    self._phases[phase_name] = (parent, steps, step + 1)
                share = self._share(phase_name)
            # An exception in a callback of C++'s would end the process.
            try:
                go_on = not stopped.is_set() and watch(phase_name, share)
            except Exception:
                go_on = False
            if not go_on:
                stopped.set()
            return go_on

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.pop(phase_name, None)

        def _share(self, name: str | None) -> float:
            """The share that is done of the outermost phase around this one."""
            inner = 0.0
            while name in self._phases:
                parent, steps, done = self._phases[name]
                inner = min(1.0, (done + inner) / max(1, steps))
                name = parent
            return inner

    return Monitor()


def _in_thread(work: Callable[[], tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Runs it elsewhere and waits in a way that a signal handler can run in between."""
    box: list[tuple[bytes, bytes] | Exception] = []

    def run() -> None:
        try:
            box.append(work())
        except Exception as error:
            box.append(error)

    # A daemon: a second Ctrl-C must end the program though TensorRT goes on.
    thread = threading.Thread(target=run, name="build", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if not box:
        raise PlanError("the build ended without a result")
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]
