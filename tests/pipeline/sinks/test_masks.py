"""Class ids come back exactly, from lossless video and from PNG, with the classes' colours."""

import struct
import zlib
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from engines.card import Card, CardInput
from pipeline.errors import SinkError
from pipeline.sinks import MaskVideoSink, open_mask
from pipeline.sources import SyntheticSource
from tests.pipeline.sinks.hand_made import drive, info, masks

RNG = np.random.default_rng(11)
SIZES = [(48, 64), (33, 47), (1, 1), (97, 128)]


def card(classes=21, palette="voc"):
    names = ["background", *(f"class{i}" for i in range(1, classes))]
    one = CardInput(height=8, width=8, mean=(0, 0, 0), std=(1, 1, 1), color="rgb")
    return Card(name="test", input=one, classes=names, palette=palette)


def ids(height, width, most=255):
    return RNG.integers(0, most, (height, width), np.uint8, endpoint=True)


def gray_frames(path):
    with av.open(str(path)) as file:
        return [(f.pts * f.time_base, f.to_ndarray(format="gray")) for f in file.decode(video=0)]


@pytest.mark.parametrize("size", SIZES)
def test_video_has_exactly_the_ids(tmp_path, size):
    given = [ids(*size), np.zeros(size, np.uint8), np.full(size, 255, np.uint8), ids(*size, 20)]
    sink = MaskVideoSink(tmp_path / "mask.mkv", info())
    drive(sink, masks(given))
    written = gray_frames(tmp_path / "mask.mkv")
    assert len(written) == 4
    assert all(np.array_equal(a, b) for a, (_, b) in zip(given, written, strict=True))
    assert sink.output.frames == 4
    assert sink.output.complete
    with av.open(str(tmp_path / "mask.mkv")) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("ffv1", "gray")


def test_video_keeps_the_timestamps(tmp_path):
    stamps = [500, 540, 1000, 7003]
    sink = MaskVideoSink(tmp_path / "mask.mkv", info(time_base=Fraction(1, 1000)))
    drive(sink, masks([ids(8, 8)] * 4, pts=stamps, time_base=Fraction(1, 1000)))
    assert [t for t, _ in gray_frames(tmp_path / "mask.mkv")] == [Fraction(p, 1000) for p in stamps]


def test_labels_that_are_not_contiguous_are_written_as_they_look(tmp_path):
    given = [ids(40, 60)[:, :50], ids(50, 40).T, ids(40, 50)[::-1]]
    assert not any(labels.flags.c_contiguous for labels in given)
    drive(MaskVideoSink(tmp_path / "mask.mkv", info()), masks(given))
    written = gray_frames(tmp_path / "mask.mkv")
    assert all(np.array_equal(a, b) for a, (_, b) in zip(given, written, strict=True))


def test_after_a_change_of_size_only_ids_that_were_there_are_written(tmp_path):
    given = [ids(40, 60, 20), np.where(ids(90, 50) > 127, 7, 12).astype(np.uint8)]
    drive(MaskVideoSink(tmp_path / "mask.mkv", info()), masks(given))
    second = gray_frames(tmp_path / "mask.mkv")[1][1]
    assert second.shape == (40, 60)
    assert set(np.unique(second)) == {0, 7, 12}


@pytest.mark.parametrize("size", SIZES)
def test_png_has_exactly_the_ids_and_the_classes_colors(tmp_path, size):
    given = [ids(*size), ids(*size, 20)]
    sink = open_mask(tmp_path / "%06d.png", SyntheticSource(count=2), card())
    drive(sink, masks(given))
    for index, labels in enumerate(given):
        path = tmp_path / f"{index:06d}.png"
        read, palette = indexed_png(path.read_bytes())
        assert np.array_equal(read, labels)
        assert np.array_equal(palette, card().colors)
        shown = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        assert np.array_equal(shown, card().colors[labels])


def indexed_png(data):
    """Ids (H, W) and palette (256, 3) of a PNG, by its specification (third edition)."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name = data[at + 4 : at + 8]
        chunks[name] = chunks.get(name, b"") + data[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, color, interlaced) == (8, 3, 0)
    alpha = chunks.get(b"tRNS", b"")
    assert set(alpha) <= {255}  # opaque
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    rows = np.zeros((height + 1, width), np.uint8)
    for y in range(height):
        kind, line = raw[y, 0], raw[y, 1:]
        if kind == 0:
            rows[y + 1] = line
        elif kind == 1:
            rows[y + 1] = np.cumsum(line, dtype=np.uint64).astype(np.uint8)
        elif kind == 2:
            rows[y + 1] = line + rows[y]
        else:
            left = 0
            for x in range(width):
                up, corner = int(rows[y, x]), int(rows[y, x - 1]) if x else 0
                if kind == 3:
                    guess = (left + up) // 2
                else:
                    near = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
                    guess = (left, up, corner)[near.index(min(near))]
                left = (int(line[x]) + guess) % 256
                rows[y + 1, x] = left
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    return rows[1:], palette


def test_png_in_a_folder_is_named_after_the_frames(tmp_path):
    sink = open_mask(tmp_path / "masks", SyntheticSource(count=2), card())
    drive(sink, masks([ids(8, 8, 20)] * 2))
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["000000.png", "000001.png"]
    assert sink.output.codec == "png"
    assert sink.name == "mask"


@pytest.mark.parametrize("name", ["mask.mp4", "mask.webm", "mask.jpg", "mask_%06d.jpg", "mask.avi"])
def test_what_would_change_the_ids_is_refused(tmp_path, name):
    with pytest.raises(SinkError, match=r"a mask must be lossless; allowed: \.mkv \(FFV1\), \.png"):
        open_mask(tmp_path / name, SyntheticSource(count=2), card())


@pytest.mark.parametrize("classes", [2, 21, 256])
def test_ids_of_any_number_of_classes_survive_a_png(tmp_path, classes):
    labels = (np.arange(256) % classes).astype(np.uint8).reshape(16, 16)
    sink = open_mask(tmp_path / "one.png", SyntheticSource(count=1), card(classes))
    drive(sink, masks([labels]))
    read, palette = indexed_png((tmp_path / "one.png").read_bytes())
    assert np.array_equal(read, labels)
    assert np.array_equal(palette[:classes], card(classes).colors[:classes])
