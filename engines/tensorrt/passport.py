"""The passport beside a plan: what it was built from, on what, and how right it proved to be.

A plan runs only where it was built, with the TensorRT that built it. TensorRT itself refuses some
of the others, with an error that does not name the cause, and runs the rest more slowly. So every
field is compared before a plan is loaded, and the one that differs is named.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.cache import write_atomically
from engines.card import Card
from engines.errors import PlanError
from engines.guard import Agreement
from engines.tensorrt.options import PlanOptions

# What a passport holds; a plan with another one is built again.
SCHEMA = 1


class Host(BaseModel):
    """Where a plan is good."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: str
    compute_capability: str
    driver: str
    tensorrt: str


class Passport(BaseModel):
    """A plan's own description; JSON beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # `schema` is the name that the file has; pydantic keeps that one for itself.
    schema_: int = Field(default=SCHEMA, alias="schema")
    card: Card
    model_sha256: str
    """Of the network, its card, and what is built around them (engines/wrapped.py, graph_key)."""
    options: PlanOptions
    host: Host
    plan_sha256: str
    build_s: float
    guard: Agreement | None
    """How its masks agree with FP32; null for random weights, whose masks mean nothing."""


def host_of(device: Any) -> Host:
    """What a plan built here is good for; `device` is an `engines.cuda.device.Device`."""
    import tensorrt as trt

    return Host(
        gpu=device.name,
        compute_capability=device.compute_capability,
        driver=device.driver,
        tensorrt=trt.__version__,
    )


def read_passport(plan: Path) -> Passport:
    """The passport beside a plan; raises PlanError when it is missing or is none."""
    path = passport_path(plan)
    try:
        return Passport.model_validate_json(path.read_bytes())
    except OSError:
        raise PlanError(f"plan {plan} has no passport {path.name} beside it") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "JSON"
        raise PlanError(f"passport {path} is not one: {key}: {first['msg']}") from None


def passport_path(plan: Path) -> Path:
    """NAME.plan -> NAME.json."""
    return plan.with_suffix(".json")


def write_passport(passport: Passport, plan: Path) -> None:
    """Beside the plan, whole or not at all."""
    text = passport.model_dump_json(indent=2, by_alias=True)
    write_atomically(passport_path(plan), text.encode())


def difference(passport: Passport, here: Host) -> str | None:
    """The first thing that keeps the plan from running here, as `field: there, here`; else None.

    A plan that was built to be compatible is held to less: from Ampere (compute capability 8.0)
    on, or to TensorRT's major version (the next ones run it too, the earlier ones do not).
    """
    was = passport.host
    loose_gpu = passport.options.hardware_compatible and _number(here.compute_capability)[0] >= 8
    loose_version = passport.options.version_compatible and _number(here.tensorrt) >= _number(
        was.tensorrt
    )
    if passport.schema_ != SCHEMA:
        return f"schema: {passport.schema_}, here {SCHEMA}"
    for field, free in (
        ("tensorrt", loose_version),
        ("gpu", loose_gpu),
        ("compute_capability", loose_gpu),
        ("driver", loose_version),
    ):
        there, now = getattr(was, field), getattr(here, field)
        if there != now and not free:
            return f"{field}: {there}, here {now}"
    return None


def order_difference(passport: Passport, model_sha256: str, options: PlanOptions) -> str | None:
    """The first thing in which the plan is not the one that is asked for; else None."""
    # Options first: the model's sum holds precision and refinement too, and does not name them.
    for field in PlanOptions.model_fields:
        there, wanted = getattr(passport.options, field), getattr(options, field)
        if there != wanted:
            return f"{field}: {there}, asked {wanted}"
    if passport.model_sha256 != model_sha256:
        return f"model_sha256: {passport.model_sha256[:12]}, asked {model_sha256[:12]}"
    return None


def read_plan(plan: Path, passport: Passport) -> bytes:
    """The plan's bytes; raises PlanError if they are not those that the passport describes."""
    try:
        data = plan.read_bytes()
    except OSError as error:
        raise PlanError(f"plan {plan} cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(data).hexdigest() != passport.plan_sha256:
        raise PlanError(f"plan {plan} is not the one that its passport describes: plan_sha256")
    return data


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
