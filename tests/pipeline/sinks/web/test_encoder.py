"""One encoder for all: pictures come back whole, key pictures come when they are wanted."""

import av
import numpy as np
import pytest

from pipeline.sinks.web import h264
from pipeline.sinks.web.h264 import SharedEncoder
from pipeline.sinks.web.hub import _BACKLOG, Inbox, PacketFeed
from pipeline.sinks.web.pictures import fit_for_web
from tests.clips import numbered, quadrants


def gradient(height, width):
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width) * 255 // width
    picture[..., 1] = (np.arange(height) * 255 // height)[:, None]
    return picture


def decode(packets):
    decoder = av.CodecContext.create("h264", "r")
    shown = [f for p in packets for f in decoder.decode(av.Packet(bytes(p)))]
    return shown + decoder.decode(None)


def test_each_picture_comes_out_at_once_and_in_its_colours():
    encoder = SharedEncoder()
    picture = fit_for_web(quadrants())
    packets = [encoder.encode(picture, key_wanted=False) for _ in range(10)]
    assert all(len(p) == 1 for p in packets)
    (frame, *_) = frames = decode(p for (p,) in packets)
    assert len(frames) == 10
    assert int(frame.colorspace) == 6  # ITU-T H.273: BT.601, which a browser then undoes
    seen = frame.to_ndarray(format="rgb24").astype(int)
    h, w = seen.shape[:2]
    for at in [(h // 4, w // 4), (h // 4, 3 * w // 4), (3 * h // 4, w // 4)]:
        assert abs(seen[at] - picture[at]).max() < 5, (at, seen[at], picture[at])


def test_a_browser_may_be_promised_what_comes():
    """Constrained baseline 3.1, as the SDP has it, with its headers in every key picture."""
    encoder = SharedEncoder()
    (packet,) = encoder.encode(fit_for_web(gradient(2160, 3840)), key_wanted=False)
    data = bytes(packet)
    at = data.index(b"\0\0\1\x67")  # the sequence's parameters
    profile, constraints, level = data[at + 4 : at + 7]
    assert profile == 66
    assert constraints & 0x40
    assert level <= 31


def test_key_pictures_when_wanted_and_not_more_often_than_twice_a_second(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(h264.time, "monotonic", lambda: now[0])
    encoder = SharedEncoder()
    keys = []
    for i in range(60):
        (packet,) = encoder.encode(numbered(i), key_wanted=i >= 30)
        now[0] += 1 / 15
        if packet.is_keyframe:
            keys.append(i)
    assert keys[0] == 0
    assert keys[1:] == [30, 38, 46, 54]


def test_timestamps_rise_however_fast_pictures_come(monkeypatch):
    monkeypatch.setattr(h264.time, "monotonic", lambda: 5.0)
    encoder = SharedEncoder()
    stamps = [p.pts for i in range(5) for p in encoder.encode(numbered(i), key_wanted=False)]
    assert stamps == [0, 1, 2, 3, 4]


def test_a_new_size_begins_with_a_key_picture():
    encoder = SharedEncoder()
    packets = [encoder.encode(gradient(h, w), False)[0] for h, w in [(64, 96), (64, 96), (96, 64)]]
    assert [p.is_keyframe for p in packets] == [True, False, True]
    assert [(f.height, f.width) for f in decode(packets)][-1] == (96, 64)


@pytest.mark.parametrize(
    "size", [(720, 1280), (1080, 1920), (2160, 3840), (1280, 720), (768, 1024), (1200, 1600),
             (3000, 3000), (1, 1), (37, 41), (8, 4000), (4000, 8)],
)  # fmt: skip
def test_pictures_are_fitted(size):
    out = fit_for_web(gradient(*size))
    h, w = out.shape[:2]
    assert h % 2 == w % 2 == 0
    assert max(h, w) <= 1280
    assert min(h, w) >= 16
    assert -(-h // 16) * -(-w // 16) <= 3600
    if min(size) > 100:
        assert w / h == pytest.approx(size[1] / size[0], rel=0.02)
    if size in ((720, 1280), (1280, 720)):
        assert (h, w) == size


class Packet:
    def __init__(self, is_keyframe):
        self.is_keyframe = is_keyframe


def test_a_viewer_begins_with_a_key_picture_and_so_goes_on_when_it_is_late():
    inbox, key, delta = Inbox(), Packet(True), Packet(False)
    assert not inbox.put(delta)
    assert inbox.put(key)
    assert all(inbox.put(delta) for _ in range(_BACKLOG - 1))
    assert not inbox.put(delta)  # nobody fetches: what waits is thrown away, a key is asked for
    assert not inbox.put(delta)
    assert not inbox._packets
    assert inbox.put(key)
    assert list(inbox._packets) == [key]


def test_one_viewer_that_is_late_is_nothing_to_the_others():
    feed, quick, late = PacketFeed(), Inbox(), Inbox()
    feed.join(quick)
    feed.join(late)
    assert feed.key_wanted
    feed.key_given()
    for i in range(3 * _BACKLOG):
        feed._offered.append(Packet(i == 0))
        feed._take()
        assert len(quick._packets) == 1
        quick._packets.clear()
    assert feed.key_wanted
    assert len(late._packets) <= _BACKLOG
    feed.leave(late)
    assert feed.viewers == 1
