"""Pictures on a card, with frames on the host standing in for them: NV12 of the same layout."""

from __future__ import annotations

import ctypes.util
import gc
import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.cuda.picture import Layout, NetworkInput
from engines.errors import PictureError
from engines.fake_engine import FakeEngine, fake_card
from pipeline.api import stages_for
from pipeline.card_planes import CardPlanes, has_card_frames
from pipeline.errors import SinkError
from pipeline.frame import Frame
from pipeline.planes import Matrix, Planes
from pipeline.roles import chain
from pipeline.runner import Pipeline
from pipeline.sinks import MaskVideoSink, StatisticsSink, VideoSink
from pipeline.sinks.encoder import Encoder
from pipeline.sources.color import Converter
from pipeline.sources.file import FileSource
from pipeline.sources.info import SourceInfo
from pipeline.stages import Controls, Look
from tests.clips import Tone, audio_samples, write_clip
from tests.engines.cuda.host_copies import add_copies, lend, take_back
from tests.engines.cuda.host_engine import HostEngine
from tools.job import stays_on_card

pytestmark = pytest.mark.timeout(60)
SIZE = (90, 134)  # rows of 134 bytes are padded, as a card's are


def noise(seed=0, size=SIZE, matrix=Matrix.BT709):
    rng, planes = np.random.default_rng(seed), Planes.blank(*size, matrix)
    for plane in (planes.y, planes.u, planes.v):
        plane[:] = rng.integers(16, 236, plane.shape)
    return planes


def as_card(planes):
    """The same samples as NV12; swscale only puts them in another order."""
    return CardPlanes(planes.video.reformat(format="nv12"), planes.matrix)


def same(one, two):
    return all((getattr(one, n) == getattr(two, n)).all() for n in "yuv")


def test_it_reads_as_any_planes():
    planes = noise()
    card = as_card(planes)
    assert isinstance(card, Planes)
    assert card.shape == SIZE
    assert same(card, planes)
    assert (card.rgb == planes.rgb).all()
    assert card.rgb is card.rgb
    assert card.host is card.host
    assert same(card.copy(), planes)
    with pytest.raises(AttributeError):
        _ = card.x


def test_the_addresses_are_those_of_the_samples():
    planes = noise()
    card = as_card(planes)
    assert card.pitch >= SIZE[1]
    for row in (0, 7, SIZE[0] - 1):
        assert ctypes.string_at(card.address + row * card.pitch, SIZE[1]) == bytes(planes.y[row])
    chroma = np.frombuffer(ctypes.string_at(card.chroma + 5 * card.pitch, SIZE[1]), np.uint8)
    assert (chroma[::2] == planes.u[5]).all()
    assert (chroma[1::2] == planes.v[5]).all()


def test_a_frame_holds_it_and_reads_as_rgb():
    planes = noise()
    frame = Frame(0, 0, Fraction(1, 25), as_card(planes))
    frame.shared = True
    assert isinstance(frame.held_image, CardPlanes)
    assert (frame.image == planes.rgb).all()
    assert isinstance(frame.held_image, CardPlanes)


class Pictures:
    """Planes, or the same ones as if on a card."""

    name, live = "pictures", False

    def __init__(self, count, size=SIZE, card=True, lend=None):
        self.count, self.size, self.card, self.lend = count, size, card, lend
        self.lost = {}

    def frames(self):
        for index in range(self.count):
            planes = noise(index, self.size)
            picture = as_card(planes) if self.card else planes
            if self.lend is not None:
                self.lend(picture)
            yield Frame(index, index, Fraction(1, 25), picture)


@pytest.mark.parametrize("more", [{}, {"smooth": True}, {"every": 3}])
@pytest.mark.parametrize("look", [Look(), Look(legend=True, contours=True)])
def test_the_cpu_lane_takes_them(more, look):
    """Its labels and pictures are those of planes that never were on a card."""
    with FakeEngine(fake_card(18, 32)) as engine:
        stages = [stages_for(engine, look, **more) for _ in range(2)]
        for one, two in zip(
            chain(Pictures(6), stages[0]), chain(Pictures(6, card=False), stages[1]), strict=True
        ):
            assert (one.labels == two.labels).all()
            assert same(one.held_picture, two.held_picture)


@pytest.fixture
def machine(cuda, host_graph, host_nvcc):
    add_copies(cuda)
    lent = []
    cuda.lend = lambda picture: (lent.append(picture), lend(cuda, picture))
    yield cuda
    for picture in lent:
        take_back(cuda, picture)


@pytest.mark.parametrize("stay", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_lane_paints_them_as_it_paints_planes(machine, stay, batch):
    card = fake_card(18, 32)
    wanted = list(
        chain(Pictures(7, card=False), stages_for(HostEngine(machine, card, batch=batch)))
    )
    source, engine = Pictures(7, lend=machine.lend), HostEngine(machine, card, batch=batch)
    with Pipeline(source, stages_for(engine, stay=stay)) as pipeline:
        frames = list(pipeline)
    assert [f.index for f in frames] == list(range(7))
    for mine, theirs in zip(frames, wanted, strict=True):
        assert (mine.labels == theirs.labels).all()
        assert isinstance(mine.held_picture, CardPlanes) == stay
        assert same(mine.held_picture, theirs.held_picture)
        if stay:  # in place: nothing was allocated for it
            assert mine.held_picture.address == mine.held_image.address
        else:
            assert same(mine.held_image, noise(mine.index))


def test_on_the_card_only_copies_on_the_card_move_pictures(machine):
    machine.calls.clear()
    source = Pictures(8, lend=machine.lend)
    with Pipeline(
        source, stages_for(HostEngine(machine, fake_card(18, 32)), labels=False, stay=True)
    ) as pipeline:
        frames = list(pipeline)
    assert machine.calls.count("cuMemcpy2DAsync") == 8 * 2 * 2  # two planes, there and back
    assert machine.calls.count("cuMemcpyDtoHAsync") == 8  # class ids at the network's size
    assert all(f.held_picture._host is None and f.held_image._host is None for f in frames)


def test_a_legend_is_drawn_on_the_host(machine):
    card, look = fake_card(18, 32), Look(legend=True, classes=tuple(range(21)))
    wanted = list(chain(Pictures(3, card=False), stages_for(HostEngine(machine, card), look)))
    source = Pictures(3, lend=machine.lend)
    for mine, theirs in zip(
        chain(source, stages_for(HostEngine(machine, card), look, stay=True)), wanted, strict=True
    ):
        assert not isinstance(mine.held_picture, CardPlanes)
        assert same(mine.held_picture, theirs.held_picture)


def test_planes_of_both_places_may_follow_one_another(machine):
    class Both(Pictures):
        def frames(self):
            for frame in super().frames():
                if frame.index % 3 == 0:
                    frame.image = frame.held_image.host
                yield frame

    card = fake_card(18, 32)
    wanted = list(chain(Pictures(7, card=False), stages_for(HostEngine(machine, card))))
    source = Both(7, lend=machine.lend)
    with Pipeline(source, stages_for(HostEngine(machine, card), stay=True)) as pipeline:
        for mine, theirs in zip(pipeline, wanted, strict=True):
            assert same(mine.held_picture, theirs.held_picture)


def test_an_engine_on_another_card_does_not_touch_them(machine, monkeypatch):
    monkeypatch.setattr(CardPlanes, "gpu", 1)
    source = Pictures(3, lend=machine.lend)
    pipeline = Pipeline(source, stages_for(HostEngine(machine, fake_card(18, 32))))
    with pytest.raises(PictureError, match="lie on GPU 1 and the engine works on GPU 0"):
        pipeline.run()


def test_a_surface_of_another_form_is_refused(machine):
    from engines.cuda.lane import Form, Lane, Task
    from pipeline.stages.lane import _arrays, make_paint

    card, picture = fake_card(18, 32), as_card(noise())
    form = Form(
        Layout("nv12", 64, 64),
        Layout("nv12", 64, 64),
        NetworkInput(18, 32, 0, 0, 18, 32, (0, 0, 0)),
        tuple(range(12)),
    )
    paint = make_paint(card, Look(), picture.matrix, 64)
    with Lane(HostEngine(machine, card), form, paint) as lane:
        with pytest.raises(PictureError):
            lane.submit(Task([_arrays(picture)], [_arrays(picture)], paint))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_its_memory_goes_when_the_last_holder_lets_go():
    """A gigabyte of frames passes through; none may be kept by what looked at it."""

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def pass_through(count):
        for n in range(count):
            card = CardPlanes(av.VideoFrame(1920, 1080, "nv12"), Matrix.BT709)
            card.host.y[0, 0] = n % 256
            assert card.gpu == 0

    gc.disable()  # a cycle would hold frames until the collector comes
    try:
        pass_through(20)
        before = resident()
        pass_through(200)
        assert resident() < before + (100 << 20)
    finally:
        gc.enable()


class OnCard:
    """A frame of the host that calls itself a CUDA frame; there is no other way to have one."""

    def __init__(self, frame):
        self._frame, self.sw_format = frame, frame.format
        self.format = type("Format", (), {"name": "cuda"})

    def __getattr__(self, name):
        return getattr(self._frame, name)


def test_upright_8_bit_nv12_of_even_sides_stays_on_the_card():
    frame = noise().video.reformat(format="nv12")
    frame.color_range = 1
    got = Converter()(OnCard(frame))
    assert isinstance(got, CardPlanes)
    assert same(got, noise())


def test_files_pass_through_with_times_and_audio_as_they_are(tmp_path, monkeypatch):
    """The whole way but for NVDEC itself: the file's frames, put into NV12."""
    path = write_clip(tmp_path / "in.mp4", count=30, audio=[Tone()])
    plain = [(f.pts, f.duration, f.held_image) for f in FileSource(path).frames()]

    class Decoder(Converter):
        def __call__(self, frame):
            return as_card(super().__call__(frame))

    monkeypatch.setattr("pipeline.sources.file.open_on_gpu", lambda path, gpu: av.open(str(path)))
    monkeypatch.setattr("pipeline.sources.file.why_not", lambda stream, first: "")
    monkeypatch.setattr("pipeline.sources.file.Converter", Decoder)
    source = FileSource(path, decode_on=0)
    out = VideoSink(tmp_path / "out.mp4", source.info, encoder="libx264")
    out.audio = source.tap_audio()

    def painted():
        for frame in source.frames():
            frame.picture = frame.held_image
            yield frame

    frames = list(out.run(painted()))
    assert source.gpu == 0
    assert [(f.pts, f.duration) for f in frames] == [(p, d) for p, d, _ in plain]
    for frame, (_, _, image) in zip(frames, plain, strict=True):
        assert isinstance(frame.held_image, CardPlanes)
        assert same(frame.held_image, image)
    (start, sound), (wanted_start, wanted) = (
        audio_samples(tmp_path / "out.mp4"),
        audio_samples(path),
    )
    assert start == wanted_start
    assert (sound == wanted).all()


def test_encoders_of_the_host_take_them(tmp_path):
    """The file is the one that planes of the host give."""
    info = SourceInfo(width=SIZE[1], height=SIZE[0], time_base=Fraction(1, 25))
    paths = [tmp_path / "card.mp4", tmp_path / "host.mp4"]
    for path, card in zip(paths, (True, False), strict=True):
        frames = list(Pictures(10, card=card).frames())
        for frame in frames:
            frame.picture = frame.held_image
        for _ in VideoSink(path, info, encoder="libx264").run(iter(frames)):
            pass
    one, two = (list(av.open(str(path)).demux(video=0)) for path in paths)
    assert [bytes(p) for p in one] == [bytes(p) for p in two]


def test_pictures_stay_where_one_encoder_of_the_card_is_all_that_looks(tmp_path):
    info = SourceInfo(width=8, height=8, time_base=Fraction(1, 25))
    assert Encoder("h264_nvenc", "yuv420p").takes_card_pictures == (has_card_frames())
    assert not Encoder("libx264", "yuv420p").takes_card_pictures

    def video(name, card=True):
        sink = VideoSink(tmp_path / name, info, encoder="libx264")
        sink.takes_card_pictures = card
        return sink

    masks = MaskVideoSink(tmp_path / "m.mkv", info)
    rows = StatisticsSink(tmp_path / "s.jsonl", ["a"])
    plain, legend = Controls(Look()), Controls(Look(legend=True))
    assert stays_on_card([video("a.mp4"), masks, rows], plain)
    assert not stays_on_card([video("a.mp4"), masks, rows], legend)
    assert not stays_on_card([video("a.mp4"), video("b.mp4")], plain)
    assert not stays_on_card([video("a.mp4", card=False)], plain)
    assert not stays_on_card([video("a.mp4"), object()], plain)
    assert not stays_on_card([masks], plain)
    assert not stays_on_card([], plain)


@pytest.mark.skipif(not has_card_frames(), reason="needs PyAV 18")
def test_an_encoder_of_the_card_gets_the_frame_itself(tmp_path, monkeypatch):
    """x264 takes NV12 of the host as NVENC takes that of a card, and gives what it gives for the
    same planes; keyframes of the source are no orders to it.
    """
    source = write_clip(tmp_path / "in.mp4", count=30, gop=3)
    monkeypatch.setattr("pipeline.sinks.video.card_encoder", lambda gpu: None)
    paths = [tmp_path / "card.mp4", tmp_path / "host.mp4"]
    for path, card in zip(paths, (True, False), strict=True):
        reader = FileSource(source)
        sink = VideoSink(path, reader.info, encoder="libx264")
        sink.takes_card_pictures = card

        def painted(reader=reader, card=card):
            for frame in reader.frames():
                held = frame.held_image
                frame.picture = as_card(held) if card and frame.index != 20 else held
                if isinstance(frame.held_picture, CardPlanes):
                    assert frame.held_picture.video.pict_type == held.video.pict_type != 0
                yield frame
                assert getattr(frame.held_picture, "_host", None) is None

        for _ in sink.run(painted()):
            pass
    one, two = (list(av.open(str(path)).demux(video=0)) for path in paths)
    assert [bytes(p) for p in one] == [bytes(p) for p in two]
    assert [p.pts for p in one] == [p.pts for p in two]
    assert sum(p.is_keyframe for p in one) == 1


@pytest.mark.skipif(not has_card_frames(), reason="needs PyAV 18")
@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="there is a driver here")
def test_an_encoder_that_gets_no_context_says_so(tmp_path):
    info = SourceInfo(width=SIZE[1], height=SIZE[0], time_base=Fraction(1, 25))
    sink = VideoSink(tmp_path / "out.mp4", info, encoder="libx264")
    sink._encoder = Encoder("h264_nvenc", "yuv420p")
    sink.takes_card_pictures = True
    (frame,) = Pictures(1).frames()
    frame.picture = frame.held_image
    with pytest.raises(SinkError, match="h264_nvenc does not take pictures from GPU 0"):
        list(sink.run(iter([frame])))
    assert not list(tmp_path.iterdir())
