"""From a name to a running engine: what is refused, what is kept, and that `voc` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import external_data_helper

from engines.cache import cache_dir, write_atomically
from engines.choose import (
    ENGINES,
    PRECISIONS,
    Choice,
    choose_engine,
    is_installed,
    load_engine,
)
from engines.cuda.device import open_device
from engines.errors import CardError, EngineUnavailableError, ModelError, PlanError
from engines.model import find_model
from engines.openvino_engine import available_precisions
from engines.quantize import quantize
from engines.tensorrt import plans
from engines.tensorrt.options import PlanOptions
from engines.wrapped import wrapped_graph
from tests import networks

CARD = networks.make_card(classes=networks.LEVELS)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that only this test sees."""
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path):
    return networks.save(tmp_path, networks.red_levels(), CARD)


def levels(path, **options):
    """Loads, runs one picture and checks what comes."""
    pictures = networks.noise(1, CARD)
    with load_engine(path, precision="fp32", **options) as engine:
        labels = engine.submit(pictures).result()
    np.testing.assert_array_equal(labels, networks.red_level(pictures))


def graphs(cache):
    return sorted((cache / "graphs").glob("*.graph"))


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ("vok", ModelError, "'vok' is unknown; allowed: .*voc.*or the path of an .onnx file"),
        ("", ModelError, "'' is unknown"),
        ("weights.pt", ModelError, "'weights.pt' is unknown"),
        ("none.onnx", ModelError, "no model file at none.onnx"),
    ],
)
def test_an_unknown_model_is_told_what_there_is(model, error, message):
    with pytest.raises(error, match=message):
        load_engine(model)


def test_a_model_without_a_card_is_told_which_keys_one_needs(path):
    path.with_suffix(".yaml").unlink()
    with pytest.raises(CardError, match=r"no card at .*small\.yaml; a card needs the keys"):
        load_engine(path)


def test_a_shipped_model_takes_no_other_card(path):
    with pytest.raises(CardError, match="brings its own card"):
        load_engine("voc", card=path.with_suffix(".yaml"))


def test_a_card_may_lie_elsewhere(path, tmp_path):
    elsewhere = tmp_path / "other" / "card.yaml"
    elsewhere.parent.mkdir()
    path.with_suffix(".yaml").rename(elsewhere)
    levels(path, card=elsewhere)


def test_unknown_engines_and_precisions_are_told_what_there_is(path):
    with pytest.raises(EngineUnavailableError, match="'tpu' is unknown; allowed: auto, tensorrt"):
        load_engine(path, engine="tpu")
    with pytest.raises(EngineUnavailableError, match="'fp8' is unknown; allowed: auto, fp32"):
        load_engine(path, precision="fp8")
    with pytest.raises(EngineUnavailableError, match=r"no device 'TPU\.7' here; it has: .*CPU"):
        load_engine(path, device="TPU.7")
    with pytest.raises(EngineUnavailableError, match="runs on the CPU only"):
        load_engine(path, engine="onnxruntime", device="GPU")


def test_a_precision_that_the_processor_lacks_is_refused(path):
    natively = [p for p in PRECISIONS if p not in ("auto", "int8")]
    lacking = [p for p in natively if p not in available_precisions()]
    if not lacking:
        pytest.skip("this processor computes in every precision")
    with pytest.raises(EngineUnavailableError, match=rf"{lacking[0]}.*it does in: fp32"):
        load_engine(path, precision=lacking[0])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_onnxruntime_computes_in_the_networks_own_types(path, precision):
    with pytest.raises(EngineUnavailableError, match=rf"{precision}.*--precision auto"):
        load_engine(path, engine="onnxruntime", precision=precision)


def test_every_precision_that_is_said_to_work_does(path):
    for precision in available_precisions():
        with load_engine(path, precision=precision) as engine:
            assert engine.info.precision == precision
            assert engine.submit(networks.noise(1, CARD)).result().any()


@pytest.fixture
def in_both(tmp_path):
    """A network in FP32 whose card names its INT8 form, which lies beside it."""
    card = CARD.model_copy(update={"int8": "small-int8.onnx"})
    path = networks.save(tmp_path, networks.red_levels(), card)
    pictures = list(networks.noise(12, CARD)[:, None])
    made = quantize(find_model(path), pictures[:8], pictures[8:], allow_drift=True)
    (tmp_path / "small-int8.onnx").write_bytes(made.data)
    text = yaml.safe_dump(made.card.model_dump(mode="json", exclude_none=True))
    (tmp_path / "small-int8.yaml").write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_cpus_run_the_int8_form_that_a_card_names(in_both, engine):
    for precision, expected in (("auto", "int8"), ("int8", "int8"), ("fp32", "fp32")):
        with load_engine(in_both, engine=engine, precision=precision) as loaded:
            assert loaded.info.precision == expected
            assert loaded.submit(networks.noise(1, CARD)).result().any()
    with load_engine(in_both, engine=engine, size=(20, 24)) as loaded:
        assert loaded.info.precision != "int8"  # that file is for one size
    with load_engine(in_both, engine=engine, batch=2) as loaded:
        assert loaded.info.precision != "int8"
    with pytest.raises(EngineUnavailableError, match="in INT8 takes one picture of 12x16"):
        load_engine(in_both, engine=engine, precision="int8", size=(20, 24))


def test_an_int8_form_that_is_missing_is_named(path, in_both):
    (in_both.parent / "small-int8.onnx").unlink()
    with pytest.raises(ModelError, match=r"no model file at .*small-int8.onnx"):
        load_engine(in_both, engine="openvino")


def test_int8_of_a_network_that_has_none_says_how_to_make_it(path):
    with pytest.raises(EngineUnavailableError, match="small in INT8 is not here: streamseg build"):
        load_engine(path, engine="openvino", precision="int8")


def test_auto_says_why():
    assert choose_engine("auto").engine in ENGINES
    assert "GPU" in choose_engine("auto").why
    assert choose_engine("onnxruntime").why == "asked for"


# torch runs no files: tests/engines/test_torch.py.
@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "torch"])
def test_every_engine_loads_and_runs(path, engine, request):
    if engine == "tensorrt":
        request.getfixturevalue("trt11")
    levels(path, engine=engine)


def test_auto_takes_tensorrt_where_there_is_a_gpu(path, trt11, monkeypatch, cache):
    monkeypatch.setattr("engines.choose.has_nvidia_gpu", lambda: True)
    assert choose_engine() == Choice("tensorrt", "there is an NVIDIA GPU")
    with load_engine(path, batch=2) as engine:
        assert (engine.info.name, engine.info.precision, engine.batch) == ("tensorrt", "fp16", 2)
        assert engine.info.why == "there is an NVIDIA GPU"
    with pytest.raises(EngineUnavailableError, match="'CPU' is no NVIDIA GPU"):
        load_engine(path, device="CPU")
    with pytest.raises(EngineUnavailableError, match="no GPU 1 here"):
        load_engine(path, device="1")


def test_auto_says_what_is_missing_beside_a_gpu(monkeypatch, cuda):
    monkeypatch.setattr("engines.choose.has_nvidia_gpu", lambda: True)
    if is_installed("tensorrt"):
        pytest.skip("nothing is missing here")
    choice = choose_engine()
    assert choice.engine == "openvino"
    assert "tensorrt is missing, `streamseg doctor` says how" in choice.why


def test_type_stubs_are_not_tensorrt(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.pyi").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    if not is_installed("tensorrt"):
        with pytest.raises(EngineUnavailableError, match="tensorrt is not installed; pip install"):
            load_engine("voc", engine="tensorrt")


def test_a_plan_by_name(path, trt11, tmp_path, cache):
    options = PlanOptions(precision="fp32")
    order = plans.Order(find_model(path), options, open_device())
    plan = tmp_path / "mine.plan"
    with pytest.raises(ModelError, match="no model file"):
        find_model(plan)
    plans.save(plan, *plans.make(order))
    levels(plan, engine="tensorrt")
    assert trt11.builds == 1
    with pytest.raises(EngineUnavailableError, match="a TensorRT plan, which openvino cannot run"):
        load_engine(plan, engine="openvino")
    with pytest.raises(CardError, match="a plan's card is in its passport"):
        load_engine(plan, card=path.with_suffix(".yaml"), engine="tensorrt")
    plan.with_suffix(".json").unlink()
    with pytest.raises(PlanError, match="no passport mine"):
        load_engine(plan, engine="tensorrt")


def test_voc_loads_and_runs():
    with load_engine("voc", precision="fp32") as engine:
        labels = engine.submit(networks.noise(1, engine.card)).result()
        assert labels.shape == (1, engine.card.input.height, engine.card.input.width)
        assert labels.max() < 21


def test_a_graph_is_made_once_and_then_read(cache, path):
    said = []
    first = wrapped_graph(find_model(path), say=said.append)
    assert said == ["preparing small (once)"]
    (kept,) = graphs(cache)
    assert kept.read_bytes().endswith(first)
    assert wrapped_graph(find_model(path), say=said.append) == first
    assert len(said) == 1


@pytest.mark.parametrize(
    "change", [{"std": (0.5, 1.0, 1.0)}, {"color": "bgr"}, {"height": 20}, {"layout": "nhwc"}]
)
def test_a_changed_card_makes_another_graph(cache, path, change):
    first = wrapped_graph(find_model(path))
    layout = change.get("layout", "nchw")
    model = networks.red_levels(layout=layout)
    if layout == "nchw":
        onnx.save(networks.red_levels(), str(path))
    card = networks.make_card(classes=networks.LEVELS, output={"layout": layout}, **change)
    networks.save(path.parent, model, card)
    assert wrapped_graph(find_model(path)) != first
    assert len(graphs(cache)) == 2


def test_changed_weights_make_another_graph(cache, path):
    first = wrapped_graph(find_model(path))
    layer = networks.Layer(np.zeros((networks.LEVELS, 3, 1, 1)), np.arange(networks.LEVELS))
    networks.save(path.parent, networks.network(layer), CARD)
    assert wrapped_graph(find_model(path)) != first


def test_changed_weights_in_a_file_beside_the_network_make_another_graph(cache, tmp_path):
    # Exporters put large weights into a file of their own; retrained, only that one changes.
    def export(model):
        external_data_helper.convert_model_to_external_data(
            model, location="weights.bin", size_threshold=0, convert_attribute=False
        )
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        return networks.save(tmp_path, model, CARD)

    path = export(networks.red_levels())
    first, before = wrapped_graph(find_model(path)), path.read_bytes()
    levels(path)
    mirrored = networks.red_levels()
    for tensor in mirrored.graph.initializer:
        if tensor.name == "b0":
            values = onnx.numpy_helper.to_array(tensor)[::-1].copy()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, "b0"))
    export(mirrored)
    assert path.read_bytes() == before
    assert wrapped_graph(find_model(path)) != first
    assert len(graphs(cache)) == 2


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_new_cache_is_the_users_alone(cache):
    assert cache_dir("graphs") == cache / "graphs"
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize(("mode", "used"), [(0o755, True), (0o700, True), (0o777, False)])
def test_a_cache_that_others_may_write_is_not_used_nor_changed(cache, mode, used):
    cache.mkdir()
    cache.chmod(mode)
    assert (cache_dir("graphs") is not None) == used
    assert cache.stat().st_mode & 0o777 == mode


def test_a_cache_that_cannot_be_made_is_done_without(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "file" / "cache"))
    assert cache_dir("graphs") is None
    levels(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written_is_done_without(cache, path):
    cache.mkdir()
    (cache / "graphs").mkdir()
    (cache / "graphs").chmod(0o500)
    assert cache_dir("graphs") is None
    levels(path)


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_cache_on_a_full_disk_is_done_without(cache, path):
    # A limit on the size of files stands for the full disk: writing fails half-way.
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from engines.wrapped import wrapped_graph; from engines.model import find_model\n"
        "import engines.graph\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "print(len(wrapped_graph(find_model(Path(sys.argv[1])))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
    assert list((cache / "graphs").iterdir()) == []  # nothing half-written stays


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "kept"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-9], lambda data: b"x" + data]
)
def test_a_damaged_graph_in_the_cache_is_made_again(cache, path, damage):
    first = wrapped_graph(find_model(path))
    (kept,) = graphs(cache)
    kept.write_bytes(damage(kept.read_bytes()))
    assert wrapped_graph(find_model(path)) == first
    said: list[str] = []
    assert wrapped_graph(find_model(path), say=said.append) == first
    assert not said, "and kept"
