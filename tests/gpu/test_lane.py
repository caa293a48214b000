"""The GPU lane on a real card, with TensorRT and with PyTorch, whichever is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.choose import is_installed, load_engine
from engines.cuda.kernels import paint_table
from engines.cuda.lane import Form, Lane, Paint, Task
from engines.cuda.picture import Layout, NetworkInput
from engines.errors import EngineError
from pipeline.api import stages_for
from pipeline.planes import Planes
from pipeline.roles import chain
from pipeline.runner import Pipeline
from pipeline.sinks import VideoSink
from pipeline.sources import SyntheticSource, open_source
from pipeline.stages import Look, colorize, infer, preprocess

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]
if "STREAMSEG_GPU" not in os.environ:
    pytest.skip("needs a GPU: make test-gpu", allow_module_level=True)
ROOT = Path(__file__).parents[2]
FRAMES = sorted((ROOT / "engines" / "guard_frames").glob("*.jpg"))


@pytest.fixture(scope="module", params=["tensorrt", "torch"])
def load(request):
    """Loads voc on an engine."""
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return lambda **more: load_engine("voc", engine=request.param, **more)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """720p with the guard's pictures moving through it."""
    folder = tmp_path_factory.mktemp("clip")
    pictures = [cv2.resize(cv2.imread(str(path)), (1280, 720)) for path in FRAMES]
    source = SyntheticSource(720, 1280, 90)

    def frames():
        for frame in source.frames():
            moved = np.roll(pictures[frame.index // 15 % len(pictures)], 4 * frame.index, axis=1)
            frame.picture = np.ascontiguousarray(moved[..., ::-1])
            yield frame

    path = folder / "clip.mp4"
    for _ in VideoSink(path, source.info).run(frames()):
        pass
    return path


def held(frame):
    picture = frame.held_picture
    return (picture.y, picture.u, picture.v) if isinstance(picture, Planes) else (picture,)


def lane_of(engine, look=None, **more):
    """The lane's stages, which say nothing: nothing is done on the processor, or call by call."""
    said: list[str] = []

    def silent(line):
        said.append(line)
        raise AssertionError(line)

    stages = stages_for(engine, look, say=silent, **more)
    assert [stage.name for stage in stages] == ["infer", "colorize"], said
    return stages


def run(engine, clip, look, **more):
    with Pipeline(open_source(clip), lane_of(engine, look, **more)) as pipeline:
        return list(pipeline)


@pytest.mark.parametrize(
    "look", [Look(), Look(overlay=0.8, contours=True, legend=True), Look(classes=(8, 12, 15))]
)
def test_frames_are_those_of_the_cpu_lane(load, clip, look):
    with load_engine("voc", engine="openvino", precision="fp32") as reference:
        stages = [preprocess(reference.card), infer(reference), colorize(reference.card, look)]
        wanted = list(chain(open_source(clip), stages))
    with load() as engine:
        frames = run(engine, clip, look)
    assert [(f.index, f.pts) for f in frames] == [(f.index, f.pts) for f in wanted]
    same = np.mean([np.mean(a.labels == b.labels) for a, b in zip(frames, wanted, strict=True)])
    assert same >= 0.995
    for mine, theirs in zip(frames, wanted, strict=True):
        differs = cv2.dilate((mine.labels != theirs.labels).astype(np.uint8), np.ones((9, 9)))
        if look.legend:  # a class of a few pixels may be named in one and not in the other
            differs[:400, :400] = 1
        for one, two in zip(held(mine), held(theirs), strict=True):
            far = cv2.resize(differs, one.shape[1::-1], interpolation=cv2.INTER_NEAREST) == 0
            assert np.abs(one.astype(int) - two)[far].max() <= 2


def direct(engine, batch, graphs, said):
    """Labels and pictures of a lane of its own."""
    want = engine.card.input
    network = NetworkInput(want.height, want.width, 0, 0, want.height, want.width, (0, 0, 0))
    layout = Layout("rgb24", 480, 640)
    table = paint_table(engine.card.colors, np.arange(256) > 0, 0.5)
    paint = Paint(table)
    pictures = [cv2.resize(cv2.imread(str(p)), (640, 480))[..., ::-1] for p in FRAMES]
    out = []
    form = Form(layout, layout, network, batch=batch)
    with Lane(engine, form, paint, graphs=graphs, say=said.append) as lane:
        for begin in range(0, 24, batch):
            group = [pictures[i % len(pictures)] for i in range(begin, min(24, begin + batch))]
            task = Task([(p,) for p in group], [(np.empty_like(p),) for p in group], paint)
            found = lane.submit(task).result()
            out += [(f.full, o[0]) for f, o in zip(found, task.outs, strict=True)]
        assert lane.graphs == graphs
    return out


def test_graph_and_plain_paths_are_equal_at_every_batch(load):
    said: list[str] = []
    with load(batch=8) as engine:
        for batch in range(1, 9):
            graphed, plain = (direct(engine, batch, graphs, said) for graphs in (True, False))
            for (labels, picture), (theirs, other) in zip(graphed, plain, strict=True):
                assert (labels == theirs).all(), batch
                assert (picture == other).all(), batch
            if batch == 1:
                single = graphed
            same = [np.mean(a[0] == b[0]) for a, b in zip(single, graphed, strict=True)]
            assert min(same) >= 0.995, batch
    assert not said


def test_an_error_on_the_way_stops_the_run_with_one_line(load, clip, monkeypatch):
    with load() as engine:
        from engines.cuda import lane as lanes

        start, count = lanes._Slot.download, [0]

        def download(self, stream):
            count[0] += 1
            if count[0] == 20:
                raise RuntimeError("told to fail")
            start(self, stream)

        with monkeypatch.context() as patch:
            patch.setattr(lanes._Slot, "download", download)
            with pytest.raises(EngineError, match="told to fail") as caught:
                run(engine, clip, Look())
        assert "\n" not in str(caught.value)
        assert len(run(engine, clip, Look())) == 90


def test_ten_thousand_frames_without_growth(load):
    import pycuda.driver as cuda

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with load() as engine:

        def free() -> int:
            with engine.device.current():
                return cuda.mem_get_info()[0]

        source = SyntheticSource(360, 640, 10_500)
        with Pipeline(source, lane_of(engine, labels=False)) as pipeline:
            for frame in pipeline:
                if frame.index == 500:
                    card, host = free(), resident()
                if frame.index == 10_490:
                    assert free() >= card - (1 << 20)
                    assert resident() <= host + (16 << 20)
    assert pipeline.ledger.delivered == 10_500


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0, 2.0])
def test_ctrl_c_at_any_moment(load, request, clip, tmp_path, after_s):
    """`after_s` seconds after the outputs are named, which is when the engine is there."""
    name = request.node.callspec.params["load"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tools.cli", "run", "--engine", name, "--device", "0"]
    subprocess.run([*words, str(clip), "--max-frames", "3"], env=env, check=True)  # fills caches
    for i in range(40):
        (tmp_path / f"{i}.mp4").symlink_to(clip)
    words += [str(p) for p in sorted(tmp_path.glob("*.mp4"))] + ["-o", "{name}-out.mp4"]
    with subprocess.Popen(words, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as child:
        while "engine  " not in child.stderr.readline():
            assert child.poll() is None
        time.sleep(after_s)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=30)[1]
    assert child.returncode in (0, 130), said
    assert child.returncode == 130 or after_s >= 1
    assert "Traceback" not in said
    for path in tmp_path.glob("*-out.mp4"):
        assert sum(1 for _ in open_source(path).frames()) >= 1


SPOIL = """
from engines.choose import load_engine
from engines.cuda import lane
from engines.cuda.picture import Placed
from pipeline.api import stages_for
from pipeline.runner import Pipeline
from pipeline.sources import SyntheticSource

upload = lane._Slot.upload

def astray(slot, task, stream):
    upload(slot, task, stream)
    at = Placed(slot._form.layout, 16)  # nobody's memory: the card's context dies of it
    slot._kernels.resize(stream, at, int(slot._tensor), slot._form.network, slot._form.into_rgb)

with load_engine("voc", engine=NAME) as engine:
    lane._Slot.upload = astray
    try:
        Pipeline(SyntheticSource(360, 640, 50), stages_for(engine)).run()
    except Exception as error:
        print("stopped:", type(error).__name__, error)
"""


def test_an_error_that_kills_the_context_ends_the_run_and_not_the_process(load, request):
    code = SPOIL.replace("NAME", repr(request.node.callspec.params["load"]))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("stopped: InferenceError"), (done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr


def test_torch_lives_beside_the_lane(load, clip):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    values = torch.arange(1000.0, device="cuda")
    with load() as engine:
        assert len(run(engine, clip, Look())) == 90
        assert float((values * 2).sum()) == 999000.0
