"""Each layout finds its pairs and reads the ids that they stand for."""

import numpy as np
import pytest

from tests.tools.labelled import save, scene
from tools.data.labelled import VOID, read_mask, read_pair
from tools.data.layouts import CAMVID, CITYSCAPES, VOC, open_dataset
from tools.data.split import share_out
from tools.data.survey import histogram, require_sound, survey
from tools.errors import DataError

PALETTE = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)] + [(9, 9, 9)] * 251 + [(224,) * 3]


def save_palette(path, ids):
    """As VOC's masks are: a PNG whose pixels are positions in a palette."""
    pillow = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pillow.fromarray(ids, mode="P") if ids.dtype == np.uint8 else None
    image.putpalette([value for row in PALETTE for value in row][:768])
    image.save(path)
    return path


def test_camvid(tmp_path):
    image, ids = scene(0)
    ids[5, 5] = 11
    ids[ids == 255] = 11
    save(tmp_path / "val" / "a.png", image)
    save(tmp_path / "valannot" / "a.png", ids)
    dataset = open_dataset(tmp_path, "camvid", "val")
    assert dataset.classes == CAMVID
    assert dataset.palette == "camvid"
    (pair,) = dataset.pairs
    picture, read = read_pair(dataset, pair)
    assert np.array_equal(picture, image)
    assert np.array_equal(read, np.where(ids == 11, VOID, ids))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("nested", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc_reads_positions_in_a_palette(tmp_path, nested):
    image, ids = scene(0)
    home = tmp_path / nested
    save(home / "JPEGImages" / "2007_01.jpg", image)
    save_palette(home / "SegmentationClass" / "2007_01.png", ids)
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_01\n2007_02\n", encoding="utf-8")
    dataset = open_dataset(tmp_path, "voc", "val")
    assert dataset.classes == VOC
    assert [pair.name for pair in dataset.pairs] == ["2007_01"]
    assert np.array_equal(read_pair(dataset, dataset.pairs[0])[1], ids)
    assert sorted(line.split(" is missing")[0] for line in dataset.missing) == [
        str(home / "JPEGImages" / "2007_02.jpg"),
        str(home / "SegmentationClass" / "2007_02.png"),
    ]


@pytest.mark.parametrize("kind", ["labelTrainIds", "labelIds"])
def test_cityscapes(tmp_path, kind):
    image, ids = scene(0)
    values = ids
    if kind == "labelIds":
        # 7 road, 8 sidewalk, 11 building, 12 wall are train ids 0 to 3; 4 is "static", not trained.
        values = np.array([7, 8, 11, 12])[np.where(ids == 255, 0, ids)].astype(np.uint8)
        values[ids == 255] = 4
    end = "aachen_000_leftImg8bit.png"
    save(tmp_path / "leftImg8bit" / "val" / "aachen" / end, image)
    end = end.replace("leftImg8bit", f"gtFine_{kind}")
    save(tmp_path / "gtFine" / "val" / "aachen" / end, values)
    dataset = open_dataset(tmp_path, "cityscapes", "val")
    assert dataset.classes == tuple(CITYSCAPES)
    assert len(dataset.classes) == 19
    assert np.array_equal(read_pair(dataset, dataset.pairs[0])[1], ids)


@pytest.mark.parametrize("places", [("images/val", "masks/val"), ("val/images", "val/masks")])
def test_pairs(tmp_path, places):
    image, ids = scene(0)
    for name in ("p2", "p10"):
        save(tmp_path / places[0] / f"{name}.jpg", image)
        save(tmp_path / places[1] / f"{name}.png", ids)
    dataset = open_dataset(tmp_path, "pairs", "val", classes=["a", "b", "c", "d"], void=[255, 9])
    assert [pair.name for pair in dataset.pairs] == ["p2", "p10"]
    assert dataset.table[9] == VOID
    assert np.array_equal(read_pair(dataset, dataset.pairs[0])[1], ids)


def test_pairs_without_split_and_names_of_classes(tmp_path):
    image, ids = scene(0)
    save(tmp_path / "images" / "a.png", image)
    save(tmp_path / "masks" / "a.png", ids)
    assert open_dataset(tmp_path, "pairs", None).classes == ()
    (tmp_path / "classes.txt").write_text("one\ntwo words\n\n", encoding="utf-8")
    assert open_dataset(tmp_path, "pairs", None).classes == ("one", "two words")


def test_low_bit_masks_are_ids_not_levels(tmp_path):
    """OpenCV stretches a 1-bit 1 to 255, which would be void."""
    pillow = pytest.importorskip("PIL.Image")
    ids = np.eye(8, dtype=np.uint8)
    path = tmp_path / "mask.png"
    pillow.fromarray(ids.astype(bool)).save(path, bits=1)
    assert path.read_bytes()[24:26] == bytes([1, 0])
    assert np.array_equal(read_mask(path), ids)


def test_survey_counts_keeps_and_names_every_fault(tmp_path):
    image, ids = scene(0)
    for name in "abcde":
        save(tmp_path / "images" / f"{name}.png", image)
        save(tmp_path / "masks" / f"{name}.png", ids)
    dataset = open_dataset(tmp_path, "pairs", None, classes="wxyz")
    found, pictures = survey(dataset, keep=True)
    assert not found.faults
    assert len(pictures.kept) == 5
    assert np.array_equal(found.pixels[:4], 5 * np.bincount(ids.ravel(), minlength=256)[:4])
    assert found.pixels[VOID] == 5 * np.count_nonzero(ids == 255)
    assert found.around[0] == 5 * np.count_nonzero(ids != 255)
    assert found.sizes == {ids.shape: 5}
    assert len(histogram(dataset, found)) == 5

    save(tmp_path / "masks" / "b.png", ids[:, :-1])
    save(tmp_path / "masks" / "c.png", np.where(ids == 1, 7, 4).astype(np.uint8))
    (tmp_path / "masks" / "d.png").write_bytes(b"nothing")
    (tmp_path / "masks" / "e.png").unlink()
    save(tmp_path / "masks" / "f.png", ids)
    found, _ = survey(open_dataset(tmp_path, "pairs", None, classes="wxyz"), keep=False)
    expected = {
        "b": "b.png is 31x24, but its picture",
        "c": "has the value 4, 7 (first at x 0, y 0); allowed are 0 to 3 and the void 255",
        "d": "d.png is not a picture that can be decoded",
        "e": "e.png has no mask",
        "f": "f.png has no picture",
    }
    for name, text in expected.items():
        (line,) = [line for line in found.faults if f"{name}.png" in line]
        assert text in line
    said = []
    with pytest.raises(DataError, match="5 faults, each named above"):
        require_sound(dataset, found, said.append)
    assert len(said) == 5


@pytest.mark.parametrize(
    ("name", "pixels", "text"),
    [
        ("m.jpg", np.zeros((4, 4), np.uint8), "lossless formats are read"),
        ("m.png", np.zeros((4, 4, 3), np.uint8), "has 3 channels of uint8"),
        ("m.png", np.zeros((4, 4), np.uint16), "1 channels of uint16"),
    ],
)
def test_masks_that_are_none(tmp_path, name, pixels, text):
    with pytest.raises(DataError, match=text):
        read_mask(save(tmp_path / name, pixels))


def test_mistakes_say_what_is_expected(tmp_path):
    with pytest.raises(DataError, match="no folder at"):
        open_dataset(tmp_path / "none", "pairs", None)
    with pytest.raises(DataError, match="allowed: pairs, voc, cityscapes, camvid"):
        open_dataset(tmp_path, "coco", None)
    with pytest.raises(DataError, match="needs the name of a split"):
        open_dataset(tmp_path, "camvid", None)
    with pytest.raises(DataError, match="its own classes and void"):
        open_dataset(tmp_path, "camvid", "val", classes=["a", "b"])
    with pytest.raises(DataError, match=r"val\.txt"):
        open_dataset(tmp_path, "voc", "val")
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match="there are no pictures"):
        open_dataset(tmp_path, "pairs", None)
    with pytest.raises(DataError, match="classes names a twice"):
        open_dataset(tmp_path, "pairs", None, classes=["a", "a"])


def test_share_out_depends_on_names_alone(tmp_path):
    image, ids = scene(0)
    for i in range(40):
        save(tmp_path / "images" / f"{i}.png", image)
        save(tmp_path / "masks" / f"{i}.png", ids)
    whole = open_dataset(tmp_path, "pairs", None)
    train, val = share_out(whole, 0.25)
    names = {pair.name for pair in val.pairs}
    assert 4 <= len(names) <= 16
    assert names.isdisjoint(pair.name for pair in train.pairs)
    assert len(train.pairs) + len(val.pairs) == 40
    for path in (tmp_path / "images" / "3.png", tmp_path / "masks" / "3.png"):
        path.unlink()
    _, fewer = share_out(open_dataset(tmp_path, "pairs", None), 0.25)
    assert {pair.name for pair in fewer.pairs} == names - {"3"}
    with pytest.raises(DataError, match="take another share"):
        share_out(whole, 1e-9)
