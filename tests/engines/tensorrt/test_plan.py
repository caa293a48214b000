"""From a network to masks, in the words of every TensorRT that is supported."""

from __future__ import annotations

import time

import pytest
from onnx import TensorProto

from engines.cuda.device import open_device
from engines.errors import BuildStoppedError, EngineUnavailableError, InferenceError, PlanError
from engines.model import find_model
from engines.tensorrt import plans
from engines.tensorrt.build import build_plan
from engines.tensorrt.options import PlanOptions
from engines.tensorrt.runtime import TensorRtEngine
from tests import networks

pytestmark = pytest.mark.timeout(90)
CARD = networks.make_card(classes=networks.LEVELS)


@pytest.fixture
def order(tmp_path, monkeypatch):
    """Makes an order for a small network; a cache of its own."""
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    path = networks.save(tmp_path, networks.red_levels(), CARD)

    def make(**more) -> plans.Order:
        options = PlanOptions(**{"batch_max": 4, **more.pop("options", {})})
        more.setdefault("model", find_model(path))
        return plans.Order(options=options, device=open_device(), **more)

    return make


def test_a_plan_gives_the_masks_of_the_network(trt, order):
    said: list[str] = []
    with plans.load_kept(order(say=said.append)) as engine:
        assert engine.info.name == "tensorrt"
        assert engine.info.precision == "fp16"
        assert engine.info.version == trt.facts["version"]
        assert engine.info.device == "GPU 0 (Stand-in GPU)"
        assert engine.batch == 4
        for count in (1, 4, 2):
            pictures = networks.noise(count, CARD, count)
            answer = engine.submit(pictures).result()
            # FP16 rounds at the borders between two levels.
            assert (answer == networks.red_level(pictures)).mean() > 0.98
    assert "building small in fp16" in said[0]
    assert any(line.startswith("guard: ") for line in said)
    assert trt.builds == 1


def test_a_misspelt_call_is_found(trt11, cuda, monkeypatch):
    config = trt11.module.Builder(_log(trt11)).create_builder_config()
    with pytest.raises(AttributeError, match="has no set_memory_pool_limits"):
        config.set_memory_pool_limits(1)
    with pytest.raises(AttributeError, match="builder_optimisation_level"):
        config.builder_optimisation_level = 3
    with pytest.raises(AttributeError, match="FP16"):
        config.set_flag(trt11.module.BuilderFlag.FP16)  # gone in 11
    with pytest.raises(TypeError, match="set_memory_pool_limit"):
        config.set_memory_pool_limit(trt11.module.MemoryPoolType.WORKSPACE, "4 GiB")
    with pytest.raises(TypeError, match="create_network"):
        trt11.module.Builder(_log(trt11)).create_network(flag=1)
    with pytest.raises(AttributeError, match="OnnxParsers"):
        _ = trt11.module.OnnxParsers


def _log(stand):
    from engines.tensorrt.library import make_log

    return make_log()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("builder_optimization_level", "builder_optimisation_level"),
        ("set_timing_cache", "set_timings_cache"),
        ("STRONGLY_TYPED", "STRONG_TYPED"),
        ("build_serialized_network(network, config)", "build_serialized_network(network)"),
        ("set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, ", "set_memory_pool_limit("),
        ("get_error(i).desc", "get_error(i).description"),
    ],
)
def test_streamsegs_own_build_with_a_call_misspelt_fails(trt11, order, monkeypatch, old, new):
    import inspect

    from engines.tensorrt import build

    source = inspect.getsource(build)
    assert old in source
    namespace = {"__name__": "misspelt"}
    exec(compile(source.replace(old, new), "misspelt", "exec"), namespace)
    graph = plans.wrapped_graph(order().model, "fp16")
    if "get_error" in old:
        graph = b"not ONNX"
    with pytest.raises((AttributeError, PlanError), match=r"has no|takes|attribute|STRONG_TYPED"):
        namespace["build_plan"](graph, PlanOptions(), open_device())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_graph_has_the_precision_that_was_asked_for(trt, order, precision, monkeypatch):
    seen = {}
    parse = plans.build_plan

    def spy(graph, *given, **named):
        import onnx

        seen["types"] = {
            t.data_type for t in onnx.load_model_from_string(graph).graph.initializer
        } - {TensorProto.INT64}
        return parse(graph, *given, **named)

    monkeypatch.setattr(plans, "build_plan", spy)
    wanted = order(options={"precision": precision})
    if precision == "bf16":
        if trt.major < 10:
            with pytest.raises(EngineUnavailableError, match="TensorRT 10"):
                plans.make(wanted)
        else:
            # The parser sees bf16; what runs here has no kernels for it.
            with pytest.raises(Exception, match=r"(?i)implement|bf|type"):
                plans.make(wanted)
            assert TensorProto.BFLOAT16 in seen["types"]
        return
    plans.make(wanted)
    kind = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16}[precision]
    assert kind in seen["types"]


def test_compatible_plans_are_asked_for_and_loaded(trt, order):
    options = {"hardware_compatible": True, "version_compatible": True}
    with plans.load_kept(order(options=options)) as engine:
        assert engine.submit(networks.noise(1, CARD)).result().shape == (1, 12, 16)
    assert "IBuilderConfig.hardware_compatibility_level" in trt.touched
    assert "Runtime.engine_host_code_allowed" in trt.touched


def test_progress_rises_and_a_no_ends_the_build(trt11, order):
    trt11.monitor_steps = [("outer", None, 2), ("inner", "outer", 5)]
    told: list[tuple[str, float | None]] = []

    def watch(phase: str, share: float | None) -> bool:
        told.append((phase, share))
        return True

    plans.make(order(watch=watch))
    shares = [share for _, share in told if share is not None]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1

    with pytest.raises(BuildStoppedError, match="nothing was kept"):
        plans.make(order(watch=lambda phase, share: share is None))


def test_a_watch_that_fails_ends_the_build_and_not_the_process(trt11, order):
    def watch(phase: str, share: float | None) -> bool:
        return share is None or 1 / 0 > 0

    with pytest.raises(BuildStoppedError):
        plans.make(order(watch=watch))


def test_what_tensorrt_says_is_the_error(trt, order):
    trt.refuse_build = "Error Code 10: Could not find any implementation for node conv0"
    with pytest.raises(PlanError, match="conv0"):
        plans.make(order())


def test_a_graph_that_it_cannot_parse(trt):
    with pytest.raises(PlanError, match="cannot take this network"):
        build_plan(b"not ONNX", PlanOptions(), open_device())


def test_kernel_timings_are_kept_and_those_of_another_gpu_are_not_used(
    trt11, order, cuda, tmp_path
):
    kept = tmp_path / "t.timing"
    plans.make(order(timing_cache=kept))
    assert kept.read_bytes() == b"Stand-in GPU 1"
    plans.make(order(timing_cache=kept))
    assert kept.read_bytes() == b"Stand-in GPU 2"
    kept.write_bytes(b"another card")
    plans.make(order(timing_cache=kept))
    assert kept.read_bytes() == b"Stand-in GPU 3"


@pytest.mark.parametrize(
    "call", ["cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate"]
)
def test_an_error_while_loading_is_one_line_and_leaves_nothing(trt11, order, cuda, call):
    plan, passport = plans.make(order())
    cuda.failing[call] = "out of memory"
    with pytest.raises(PlanError, match="out of memory") as error:
        TensorRtEngine(plan, passport.card, open_device(), precision="fp16")
    assert "\n" not in str(error.value)
    assert cuda.live == 0


@pytest.mark.parametrize("call", ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord"])
def test_an_error_on_the_card_belongs_to_one_picture(trt11, order, cuda, call):
    pictures = networks.noise(1, CARD)
    with plans.load_kept(order()) as engine:
        for _ in range(2 * engine.depth):
            cuda.failing[call] = "an illegal memory access was encountered"
            with pytest.raises(InferenceError, match="illegal memory access"):
                engine.submit(pictures)
            answer = engine.submit(pictures).result()
            assert (answer == networks.red_level(pictures)).mean() > 0.98


def test_nothing_is_allocated_for_a_frame_and_nothing_grows(trt11, order, cuda):
    with plans.load_kept(order()) as engine:
        engine.submit(networks.noise(1, CARD)).result()
        live, streams = cuda.live, len(cuda.streams)
        cuda.calls.clear()
        for seed in range(200):
            engine.submit(networks.noise(1 + seed % 4, CARD, seed))
        assert (cuda.live, len(cuda.streams)) == (live, streams)
        assert not {"cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate"} & set(
            cuda.calls
        )
    assert cuda.live == 0


def test_busy_time_counts_overlapping_runs_once(trt11, order):
    with plans.load_kept(order()) as engine:
        begun = time.perf_counter()
        for seed in range(30):
            engine.submit(networks.noise(4, CARD, seed))
        engine.submit(networks.noise(1, CARD)).result()
        assert 0 < engine.busy_s <= time.perf_counter() - begun


def test_a_plan_of_somebody_else_is_refused(trt11, order, cuda):
    import onnx

    head = f'["{trt11.facts["version"]}", {{}}, []]\n'.encode()
    other = networks.red_levels(size=(12, 16), batch=1)
    other = onnx.load_model_from_string(other.SerializeToString())
    with pytest.raises(PlanError, match="input, scores"):
        TensorRtEngine(head + other.SerializeToString(), CARD, open_device(), precision="fp16")
    with pytest.raises(PlanError, match="Magic tag"):
        TensorRtEngine(b"nonsense", CARD, open_device(), precision="fp16")


def test_a_network_with_a_batch_of_one(trt, order, tmp_path):
    path = networks.save(tmp_path, networks.red_levels(batch=1), CARD, "fixed")
    with pytest.raises(PlanError, match="exactly 1 pictures"):
        plans.make(order(model=find_model(path)))
    with plans.load_kept(order(model=find_model(path), options={"batch_max": 1})) as engine:
        pictures = networks.noise(1, CARD)
        answer = engine.submit(pictures).result()
        assert (answer == networks.red_level(pictures)).mean() > 0.98


def test_a_plan_with_a_least_batch_takes_fewer_pictures(trt11, order):
    options = {"batch_min": 3, "batch": 4}
    with plans.load_kept(order(options=options)) as engine:
        for count in (1, 4, 2):
            pictures = networks.noise(count, CARD, count)
            answer = engine.submit(pictures).result()
            assert answer.shape[0] == count
            assert (answer == networks.red_level(pictures)).mean() > 0.98
