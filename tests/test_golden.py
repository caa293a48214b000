"""A published network on published pictures, through the whole program, against published answers.

From the test data of TensorFlow Lite's task library (Apache-2.0): DeepLabV3 at 257x257, two JPEGs
of the same size, and for each a PNG whose pixels are class id x 10. The second JPEG lies on its
side, mirrored; upstream turns it upright, and its answer back. Here the EXIF tag that such a file
would have says so, and the answer stays upright. Needs STREAMSEG_SHARED, a folder with weights/ and
goldens/.
"""

import os
import struct
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml

SHARED = Path(os.environ.get("STREAMSEG_SHARED", "-")).resolve()
NETWORK = SHARED / "weights" / "deeplabv3_mnv2_dm05_voc_257_os8.onnx"
# Upstream's own test allows one pixel in a hundred to differ between platforms.
LEAST_EQUAL = 0.99
STEP = 10
"""A golden's pixel is the class id times this."""
CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
]  # fmt: skip
CARD = {
    "name": "deeplabv3-257",
    "input": {
        "height": 257,
        "width": 257,
        "mean": [0.5, 0.5, 0.5],  # x * 2 / 255 - 1
        "std": [0.5, 0.5, 0.5],
        "color": "rgb",
    },
    "classes": CLASSES,
    "license": "Apache-2.0",
}

pytestmark = pytest.mark.skipif(
    not NETWORK.is_file(), reason="STREAMSEG_SHARED names no folder with weights/ and goldens/"
)


def read_ids(path):
    """uint8 (H, W) class ids of a palette PNG."""
    with av.open(str(path)) as file:
        (frame,) = file.decode(video=0)
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : frame.width]


# EXIF 2.32, 4.6.4: which side of the picture the first row and the first column are.
UPRIGHT, TRANSVERSE = 1, 7


def with_orientation(jpeg, orientation):
    """The JPEG's bytes with an EXIF segment that holds this tag alone."""
    tag = struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + b"MM\0*" + struct.pack(">I", 8) + tag + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def turned_upright(image, orientation):
    return image[::-1, ::-1].T if orientation == TRANSVERSE else image


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("name", "orientation"), [("rotation0", UPRIGHT), ("rotation90_flop", TRANSVERSE)]
)
def test_masks_are_the_golden_ones(tmp_path, name, orientation, engine, record_property):
    pytest.importorskip(engine)
    folder = SHARED / "goldens"
    golden = cv2.imread(str(folder / f"segmentation_golden_{name}.png"), cv2.IMREAD_GRAYSCALE)
    assert golden.shape == (257, 257)
    assert not (golden % STEP).any()
    jpeg = (folder / f"segmentation_input_{name}.jpg").read_bytes()
    (tmp_path / "in.jpg").write_bytes(with_orientation(jpeg, orientation))
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
    words = ["run", "in.jpg", "--model", str(NETWORK), "--card", "card.yaml"]
    words += ["--mask", "ids.png", "--engine", engine]
    done = subprocess.run(
        [sys.executable, "-m", "tools.cli", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ids = read_ids(tmp_path / "ids.png")
    assert ids.shape == golden.shape
    equal = float((ids == turned_upright(golden, orientation) // STEP).mean())
    record_property("equal", equal)
    print(f"{name} on {engine}: {equal:.4%} of the pixels are equal")
    assert equal >= LEAST_EQUAL
