"""The default network `voc`, DeepLabV3 on MobileNetV2 for VOC's 21 classes, and its weights.

The weights are those of TensorFlow DeepLab's `deeplabv3_mnv2_pascal_trainval`, as the npm package
@codait/max-image-segmenter 0.3.0 (Apache-2.0) carries them: a TensorFlow.js graph model with batch
norm already folded. `python -m engines.zoo.voc PACKAGE.tgz OUT.onnx` makes the shipped file again.
Needs torch; running the shipped file does not.
"""

# mypy: disable-error-code="import-not-found, unused-ignore", disallow-subclassing-any=False

from __future__ import annotations

import hashlib
import json
import math
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engines.errors import ModelError
from engines.export import export_onnx

Array = NDArray[Any]

# The package as the npm registry serves it: max-image-segmenter-0.3.0.tgz.
PACKAGE_SHA256 = "203ed3d8b2891f76616555a25378ef823a1def9a505143a8196dfc28f73bcd87"
MODEL_FOLDER = "package/model"

# VOC's 20 classes and background: logits/semantic/weights has shape (1, 1, 256, 21).
CLASSES = 21
# Of each head layer: the package's aspp0 and image_pooling have shape (1, 1, 320, 256).
HEAD_CHANNELS = 256
# MobileNetV2's paper (arXiv 1801.04381), table 2, without the classifier's last convolution:
# expansion, output channels, repeats, stride of the first repeat.
STEM_CHANNELS = 32
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The (H, W) that the exporter traces with; the file's height and width stay free.
TRACE_SIZE = (289, 513)


def conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution with bias, (N, inputs, H, W) -> (N, outputs, ceil(H / stride), ...).

    The padding is symmetric. Where the stride is 2 it equals TensorFlow's SAME only for odd sizes,
    which is why the network's height and width must be 16 k + 1.
    """
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen by 1x1, filter each channel by 3x3, narrow by 1x1, linearly.

    (N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride)), float32.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, dilation: int):
        super().__init__()
        width = inputs * expansion
        self.expand = conv(inputs, width) if expansion > 1 else None
        self.depthwise = conv(width, width, 3, stride, dilation, groups=width)
        self.project = conv(width, outputs)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride)), float32."""
        y: Tensor = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        return x + y if self.adds_input else y


def backbone(output_stride: int) -> nn.Sequential:
    """MobileNetV2's 17 blocks: the stem's (N, 32, ...) at stride 2 -> (N, 320, ...), float32.

    Once the stride is spent, a block that would halve the picture keeps its size and the blocks
    *after* it look further instead (dilation), as in DeepLab's own graph.
    """
    blocks: list[nn.Module] = []
    inputs, reached, dilation = STEM_CHANNELS, 2, 1
    for expansion, outputs, repeats, first_stride in BLOCKS:
        for repeat in range(repeats):
            wanted = first_stride if repeat == 0 else 1
            stride = wanted if reached * wanted <= output_stride else 1
            blocks.append(InvertedResidual(inputs, outputs, expansion, stride, dilation))
            reached *= stride
            dilation *= wanted // stride
            inputs = outputs
    return nn.Sequential(*blocks)


class Voc(nn.Module):
    """DeepLabV3 on MobileNetV2, width 1.0, with image pooling and no dilated ASPP branches.

    Input: (N, 3, H, W) float32 RGB, x * 2 / 255 - 1 of 8-bit pixels; H and W are 16 k + 1.
    Output: (N, 21, H, W) float32 logits in VOC's class order, background first.

    `output_stride`: 16 for the shipped file, which is faster; 8 as the package's graph has it.
    """

    def __init__(self, output_stride: int = 16):
        super().__init__()
        if output_stride not in (8, 16):
            raise ModelError(f"output_stride is {output_stride}; it must be 8 or 16")
        features = BLOCKS[-1][1]
        self.stem = conv(3, STEM_CHANNELS, 3, stride=2)
        self.blocks = backbone(output_stride)
        self.local = conv(features, HEAD_CHANNELS)
        self.context = conv(features, HEAD_CHANNELS)
        self.merge_local = nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 1, bias=False)
        self.merge_context = conv(HEAD_CHANNELS, HEAD_CHANNELS)
        self.classify = conv(HEAD_CHANNELS, CLASSES)

    def forward(self, picture: Tensor) -> Tensor:
        """(N, 3, H, W) float32 normalised RGB -> (N, 21, H, W) float32 logits."""
        features = self.blocks(functional.relu6(self.stem(picture)))
        local = functional.relu(self.local(features))
        pooled = functional.adaptive_avg_pool2d(features, 1)
        context = functional.relu(self.context(pooled))
        # The original repeats `context` over the picture, joins it with `local` and merges both by
        # a 1x1 convolution. That one is linear, so it splits, and the context's half runs on a
        # single pixel. No size has to be read from the graph for it either.
        merged = functional.relu(self.merge_local(local) + self.merge_context(context))
        return functional.interpolate(
            self.classify(merged), picture.shape[2:], mode="bilinear", align_corners=True
        )


def read_package(path: Path) -> dict[str, Array]:
    """The named arrays of the package's TensorFlow.js model: (H, W, inputs, outputs) float32.

    Raises ModelError where the file is not the published package.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != PACKAGE_SHA256:
        raise ModelError(
            f"{path} has sha256 {found}, expected {PACKAGE_SHA256}: "
            "download it with `npm pack @codait/max-image-segmenter@0.3.0`"
        )
    weights: dict[str, Array] = {}
    with tarfile.open(path) as package:

        def read(name: str) -> bytes:
            member = package.extractfile(f"{MODEL_FOLDER}/{name}")
            if member is None:
                raise ModelError(f"{path}: {MODEL_FOLDER}/{name} is not a file")
            return member.read()

        for group in json.loads(read("model.json"))["weightsManifest"]:
            # The shards are one stream of bytes cut every 4 MiB, so an array may lie across a cut.
            stream = b"".join(read(shard) for shard in group["paths"])
            offset = 0
            for entry in group["weights"]:
                kind = np.dtype(entry["dtype"]).newbyteorder("<")
                array = np.frombuffer(stream, kind, math.prod(entry["shape"]), offset)
                weights[entry["name"]] = array.reshape(entry["shape"])
                offset += array.nbytes
            if offset != len(stream):
                raise ModelError(f"{path}: {len(stream)} bytes of weights, {offset} described")
    return weights


def to_state(weights: dict[str, Array]) -> dict[str, Tensor]:
    """Our parameters by name, (outputs, inputs, H, W) float32, from the package's arrays.

    Batch norm is folded into the package's convolutions, but a depthwise one keeps its scale
    beside it; it is folded here.
    """
    state: dict[str, Tensor] = {}

    def put(name: str, weight: Array, bias: Array | None = None) -> None:
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(weight))
        if bias is not None:
            state[f"{name}.bias"] = torch.from_numpy(bias.copy())

    def dense(scope: str) -> Array:
        kernel: Array = weights[f"{scope}/Conv2D/merged_input"].transpose(3, 2, 0, 1)
        return kernel

    def shift(scope: str) -> Array:
        return weights[f"{scope}/BatchNorm/FusedBatchNorm/Offset"]

    def depthwise(scope: str) -> Array:
        kernel = weights[f"{scope}/depthwise_weights"].transpose(2, 3, 0, 1)
        scale = weights[f"{scope}/BatchNorm/FusedBatchNorm/Scaled"]
        return np.asarray(np.multiply(kernel, scale[:, None, None, None]))

    put("stem", dense("MobilenetV2/Conv"), shift("MobilenetV2/Conv"))
    for index in range(sum(repeats for _, _, repeats, _ in BLOCKS)):
        block = "MobilenetV2/expanded_conv" + (f"_{index}" if index else "")
        if index:
            put(f"blocks.{index}.expand", dense(f"{block}/expand"), shift(f"{block}/expand"))
        filtering = f"{block}/depthwise"
        put(f"blocks.{index}.depthwise", depthwise(filtering), shift(filtering))
        put(f"blocks.{index}.project", dense(f"{block}/project"), shift(f"{block}/project"))
    put("local", dense("aspp0"), shift("aspp0"))
    put("context", dense("image_pooling"), shift("image_pooling"))
    # The package joins context first, then local. The one bias goes where it costs one pixel.
    merge = dense("concat_projection")
    put("merge_context", merge[:, :HEAD_CHANNELS], shift("concat_projection"))
    put("merge_local", merge[:, HEAD_CHANNELS:])
    classify = weights["logits/semantic/weights"].transpose(3, 2, 0, 1)
    put("classify", classify, weights["logits/semantic/biases"])
    return state


def build_voc(package: Path, output_stride: int = 16) -> Voc:
    """The network with the package's weights, in evaluation mode, on the CPU."""
    network = Voc(output_stride)
    network.load_state_dict(to_state(read_package(package)))
    network.eval()
    return network


def export_voc(package: Path, onnx_path: Path, output_stride: int = 16) -> None:
    """Write the network as ONNX with free batch, height and width; see engines/export.py."""
    export_onnx(build_voc(package, output_stride), onnx_path, size=TRACE_SIZE)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m engines.zoo.voc PACKAGE.tgz OUT.onnx")
    try:
        export_voc(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ModelError, OSError) as error:
        sys.exit(str(error))
