"""Building blocks of ONNX graphs: named nodes and constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class Nodes:
    """Nodes and constants in the order in which they are made; names begin with `streamseg_`."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = f"streamseg_{prefix}"

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        name = f"{self._prefix}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Adds a constant; returns its name, which is `name` behind the prefix."""
        name = f"{self._prefix}_{name}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def once(self, name: str, values: NDArray[Any]) -> str:
        """A constant that several nodes share: made by the first that asks for it."""
        full = f"{self._prefix}_{name}"
        if any(constant.name == full for constant in self.constants):
            return full
        return self.constant(name, values)

    def integers(self, values: Sequence[int]) -> str:
        """Adds a constant of int64, such as axes or a shape; returns its name."""
        return self.constant(f"c{len(self.constants)}", np.array(values, np.int64))

    def number(self, value: float) -> str:
        """Adds a constant of one float32; returns its name."""
        return self.constant(f"c{len(self.constants)}", np.array(value, np.float32))

    def slice(self, values: str, axis: int, begin: int, end: int) -> str:
        """`values[begin:end]` along an axis."""
        return self.node(
            "Slice", values, self.integers([begin]), self.integers([end]), self.integers([axis])
        )

    def resize(self, values: str, height: int, width: int) -> str:
        """(N, C, any, any) -> (N, C, height, width): bilinear, half-pixel centres, no prefilter."""
        # Batch and channels stay what they are, which only the tensor itself knows.
        shape = self.node("Shape", values)
        kept = self.node("Slice", shape, self.integers([0]), self.integers([2]))
        sizes = self.node("Concat", kept, self.integers([height, width]), axis=0)
        return self.node(
            "Resize",
            values,
            "",
            "",
            sizes,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )


class Chain(Nodes):
    """Nodes, one feeding the next, from `first` on; `end` gives the last one its name."""

    def __init__(self, prefix: str, first: str) -> None:
        super().__init__(prefix)
        self.last = first

    def add(self, op: str, *more: str, **attributes: Any) -> str:
        """Appends a node that takes the last one's output first, then `more`."""
        self.last = self.node(op, self.last, *more, **attributes)
        return self.last

    def end(self, name: str) -> None:
        self.nodes[-1].output[0] = name
