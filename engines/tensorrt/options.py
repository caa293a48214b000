"""What a plan is built with."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from engines.refine import NONE, Refine, describe, parse_refine

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class PlanOptions(BaseModel):
    """Everything that a user may ask of a build; two plans with other options are other plans."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Precision = "fp16"
    """int8 is for networks that engines/quantize.py made; what it left in FP32 is computed so."""
    batch_min: int = Field(default=1, ge=1)
    batch: int = Field(default=1, ge=1, le=256)
    """The size that the plan is tuned for."""
    batch_max: int = Field(default=1, ge=1, le=256)
    workspace_mib: int = Field(default=4096, ge=1)
    """The most device memory that a kernel may use beside its tensors."""
    optimization: int = Field(default=3, ge=0, le=5)
    """TensorRT's builder_optimization_level: 0 builds fastest, 5 tries most."""
    hardware_compatible: bool = False
    """Runs on every GPU from Ampere on, somewhat slower."""
    version_compatible: bool = False
    """Runs with later TensorRT versions too."""

    refine: str = NONE
    """How scores are refined, with every parameter, as `describe` in engines/refine.py puts it."""

    @property
    def refinement(self) -> Refine | None:
        """`refine`, read."""
        return parse_refine(self.refine)

    @field_validator("refine")
    @classmethod
    def _spelled_out(cls, value: str) -> str:
        """Raises RefineError. Two ways to ask for the same are one plan."""
        return describe(parse_refine(value))

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.batch_min <= self.batch <= self.batch_max:
            raise ValueError(
                f"batches must rise: min {self.batch_min}, best {self.batch}, max {self.batch_max}"
            )
        return self
