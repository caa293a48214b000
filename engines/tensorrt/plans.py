"""Plans made once, proven, kept, and loaded only where they are good."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from engines import guard
from engines.cache import cache_dir, write_atomically
from engines.card import Card
from engines.cuda.device import Device
from engines.engine import Engine
from engines.errors import DriftError, PlanError
from engines.model import Model
from engines.refine import Refine, describe, refined_card
from engines.tensorrt.build import Watch, build_plan
from engines.tensorrt.options import PlanOptions
from engines.tensorrt.passport import (
    Passport,
    difference,
    host_of,
    order_difference,
    read_passport,
    read_plan,
    write_passport,
)
from engines.tensorrt.runtime import TensorRtEngine
from engines.wrapped import graph_key, wrapped_graph

Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """A plan that somebody wants, and how to make it."""

    model: Model
    options: PlanOptions
    device: Device
    say: Say = lambda line: None
    watch: Watch = lambda phase, share: True
    timing_cache: Path | None = None
    """None: the one in the user's cache."""
    frames: Path | None = None
    """A folder of pictures for the guard; None: those of the package."""
    allow_drift: bool = False
    why: str = ""
    exact: Model | None = None
    """What the guard compares with where the model is in INT8: the network that was quantized."""

    @property
    def rewritten(self) -> str:
        """What the graph is rewritten to: one in INT8 is so already, and is not."""
        precision = self.options.precision
        return "fp32" if precision == "int8" else precision

    @cached_property
    def model_sha256(self) -> str:
        """What the passport says of the model."""
        return graph_key(self.model, self.rewritten, self.options.refinement)

    @cached_property
    def card(self) -> Card:
        """What the plan takes: the model's card, or what a refinement makes of it."""
        return refined_card(self.model.card, self.options.refinement)


def load_kept(order: Order) -> TensorRtEngine:
    """The engine of a plan from the user's cache, built first if there is no good one.

    Whoever comes while another process builds the same plan waits for it. Raises EngineError.
    """
    plan, passport = _obtain(order)
    return _open(plan, passport, order.device, order.why)


def keep(order: Order) -> tuple[Path, Passport]:
    """Sees to it that the user's cache holds the plan; says where. Raises EngineError."""
    folder = cache_dir("tensorrt")
    if folder is None:
        raise PlanError("no cache folder is writable; name a file with -o")
    _, passport = _obtain(order)
    path = folder / _file_name(order)
    if not path.exists():
        raise PlanError(f"the plan cannot be written to {folder}; name another place with -o")
    return path, passport


def _obtain(order: Order) -> tuple[bytes, Passport]:
    folder = cache_dir("tensorrt")
    if folder is None:
        order.say("no cache folder is writable: this plan is built again at every start")
        return make(order)
    path = folder / _file_name(order)
    found = _kept(path, order)
    if isinstance(found, str):
        with _locked(path, order.say):
            found = _kept(path, order)  # whoever had the lock may have built it
            if isinstance(found, str):
                order.say(found)
                found = make(order)
                # A full disk must not cost the run what it has just built.
                with suppress(OSError):
                    save(path, *found)
    return found


def load_file(plan: Path, device: Device, why: str, refine: Refine | None = None) -> TensorRtEngine:
    """The engine of a plan that a user names; raises PlanError, with the field, if it is not good
    here, or refines otherwise than `refine` (None: as it was built).
    """
    passport = read_passport(plan)
    if refine is not None and passport.options.refine != describe(refine):
        raise PlanError(
            f"plan {plan} was built with --refine {passport.options.refine}, which is part of it; "
            f"build another with --refine {refine}, or leave --refine out"
        )
    found = difference(passport, host_of(device))
    if found is not None:
        raise PlanError(
            f"plan {plan} is not good here, {found}; build it again on this machine: "
            f"streamseg build {passport.card.name} -o {plan}"
        )
    return _open(read_plan(plan, passport), passport, device, why)


def make(order: Order) -> tuple[bytes, Passport]:
    """Builds a plan and proves it; nothing is kept but the timing cache.

    Raises PlanError, and DriftError where masks differ from FP32's and that is not allowed.
    """
    card, options = order.card, order.options
    graph = wrapped_graph(order.model, order.rewritten, order.say, options.refinement)
    host = host_of(order.device)
    timing = order.timing_cache or _timing_cache(host.gpu, host.tensorrt)
    begun = time.perf_counter()
    plan, grown = build_plan(graph, options, order.device, timing=_read(timing), watch=order.watch)
    build_s = time.perf_counter() - begun
    order.say(f"built in {build_s:.0f} s, {len(plan) / 1e6:.0f} MB")
    if timing is not None:
        with suppress(OSError):
            write_atomically(timing, grown)
    passport = Passport(
        card=card,
        model_sha256=order.model_sha256,
        options=options,
        host=host,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        build_s=round(build_s, 3),
        guard=None,
    )
    if card.metrics.get("weights") == "random":
        order.say("weights are random: masks mean nothing and are not compared with FP32's")
        return plan, passport
    return plan, passport.model_copy(update={"guard": _prove(plan, passport, order)})


def save(path: Path, plan: bytes, passport: Passport) -> None:
    """The plan, then its passport: a plan without one is never loaded."""
    write_atomically(path, plan)
    write_passport(passport, path)


def _prove(plan: bytes, passport: Passport, order: Order) -> guard.Agreement:
    """The plan's agreement with FP32 on real frames."""
    pictures = guard.guard_pictures(order.card, order.frames)
    with ExitStack() as engines:
        built = engines.enter_context(_open(plan, passport, order.device, order.why))
        right = engines.enter_context(_reference(order))
        found = guard.compare(built, right, pictures)
    order.say(f"guard: {found}")
    what = f"{passport.card.name} in {passport.options.precision}"
    remedies = ("--precision fp32 keeps the masks", "--allow-drift takes the plan as it is")
    try:
        guard.check(found, what, remedies)
    except DriftError as error:
        if not order.allow_drift:
            raise
        order.say(f"warning: {error}")
        return found.model_copy(update={"allowed": True})
    return found


def _reference(order: Order) -> Engine:
    """The same network, refined alike, in FP32 on the processor, by another maker's code."""
    from engines.choose import is_installed, load_engine

    name = "onnxruntime" if is_installed("onnxruntime") else "openvino"
    order.say(f"comparing masks with FP32 on {name}")
    model = order.exact or order.model
    return load_engine(model, engine=name, precision="fp32", refine=order.options.refinement)


def _open(plan: bytes, passport: Passport, device: Device, why: str) -> TensorRtEngine:
    return TensorRtEngine(
        plan,
        passport.card,
        device,
        precision=passport.options.precision,
        host_code=passport.options.version_compatible,
        why=why,
        refine=passport.options.refine,
    )


def _file_name(order: Order) -> str:
    """Readable, and another one for another network, other options or another card, so that two
    GPUs in one machine, or one home folder on many, do not build each other's plan again.
    """
    options = order.options
    key = hashlib.sha256()
    for part in (order.model_sha256, options.model_dump_json(), order.device.name):
        key.update(part.encode())
    name = f"{order.model.card.name}-{options.precision}-b{options.batch_max}"
    return f"{_slug(name)}-{key.hexdigest()[:16]}.plan"


def _kept(path: Path, order: Order) -> tuple[bytes, Passport] | str:
    """The plan in the cache, or, as a line for the user, why there is none that is good."""
    name = f"{order.model.card.name} in {order.options.precision}"
    if not path.exists():
        return f"building {name} for {order.device.name} (once; this takes minutes)"
    try:
        passport = read_passport(path)
        found = difference(passport, host_of(order.device))
        found = found or order_difference(passport, order.model_sha256, order.options)
        if found is not None:
            return f"building {name} again, the kept plan is for another machine or order, {found}"
        plan = read_plan(path, passport)
    except PlanError as error:
        return f"building {name} again: {error}"
    if passport.guard is not None and passport.guard.allowed and not order.allow_drift:
        order.say(f"warning: {name} was allowed to drift: {passport.guard}")
    return plan, passport


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """One process builds; the system frees the lock of one that dies."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("another process is building this plan; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _timing_cache(gpu: str, tensorrt: str) -> Path | None:
    folder = cache_dir("tensorrt")
    return None if folder is None else folder / f"{_slug(f'{gpu}-{tensorrt}')}.timing"


def _read(path: Path | None) -> bytes:
    try:
        return b"" if path is None else path.read_bytes()
    except OSError:
        return b""


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()
