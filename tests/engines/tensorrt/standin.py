"""TensorRT on the host, checked against the real bindings call by call.

Each name that streamseg asks for must exist in the bindings of that version, each call must match
one of the real signatures in number, names and kinds of arguments, each attribute that is set must
be a real property. What the calls do is done by ONNX Runtime: a plan holds the graph, a context
runs it on "device" memory. So the whole way from a build to a mask is walked, in every version's
words.
"""

from __future__ import annotations

import enum
import json
import re
from functools import wraps
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

_SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> ", re.MULTILINE)


def parameters(doc: str) -> list[list[tuple[str, str, bool]]]:
    """Every overload in a pybind11 docstring as [(name, kind, has a default)], without self."""
    found = []
    for match in _SIGNATURE.finditer(doc):
        if match[2] == "*args, **kwargs":
            continue
        parts, depth, start = [], 0, 0
        for i, char in enumerate(match[2] + ","):
            depth += (char in "([<") - (char in ")]>")
            if char == "," and depth == 0:
                parts.append(match[2][start:i].strip())
                start = i + 1
        listed = []
        for part in filter(None, parts):
            name, _, rest = part.partition(":")
            kind, equals, _ = rest.partition(" = ")
            listed.append((name.strip(), kind.strip(), bool(equals)))
        if listed and (listed[0][0] == "self" or listed[0][0] == "arg0"):
            listed = listed[1:]
        found.append(listed)
    return found


def fits(value: Any, kind: str) -> bool:
    """Whether pybind11 would take the value for a parameter of this kind."""
    last = kind.split(".")[-1]
    if kind in ("int", "typing.SupportsInt"):
        return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str)
    if kind in ("buffer", "typing_extensions.Buffer") or "Buffer" in last:
        return isinstance(value, (bytes, bytearray, memoryview))
    if kind in ("tuple", "list"):
        return type(value).__name__ == kind
    if last == "Dims":
        return isinstance(value, (tuple, list)) and all(isinstance(n, int) for n in value)
    if isinstance(value, enum.Enum):
        return type(value).__name__ == last
    return any(base.__name__ == last for base in type(value).__mro__)


class StandIn:
    """One version of TensorRT; `module` stands in for the package `tensorrt`."""

    def __init__(self, facts: dict, cuda: Any) -> None:
        self.facts, self.cuda = facts, cuda
        self.builds = 0
        self.before_build = lambda: None
        self.refuse_build = ""
        self.break_masks = None
        self.monitor_steps: list[tuple[str, str | None, int]] = [("all", None, 4)]
        self.touched: set[str] = set()
        self.module = _make(self)

    @property
    def major(self) -> int:
        return int(self.facts["version"].split(".")[0])

    def install(self, modules: dict) -> None:
        modules["tensorrt"] = self.module


class _Kind(enum.Enum):
    """An enum of pybind11's: int() gives its value."""

    def __int__(self) -> int:
        return self.value


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        version = self._version
        raise AttributeError(f"module 'tensorrt' {version} has no attribute {name!r}")


def _make(stand: StandIn) -> ModuleType:
    facts, cuda = stand.facts, stand.cuda
    module = _Module("tensorrt")
    module._version = facts["version"]
    module.__spec__ = ModuleSpec("tensorrt", None, origin="stand-in")
    module.__version__ = facts["version"]
    for name, members in facts["enums"].items():
        if "." not in name:
            setattr(module, name, _Kind(name, members))

    def members_of(kind: type) -> dict[str, list[str]]:
        for base in kind.__mro__:
            if base.__name__ in facts["classes"]:
                return facts["classes"][base.__name__]
        raise AttributeError(f"tensorrt {facts['version']} has no class {kind.__name__}")

    def check_call(kind: type, name: str, given: tuple, named: dict) -> None:
        members = members_of(kind)
        stand.touched.add(f"{kind.__name__}.{name}")
        if name not in members:
            raise AttributeError(f"{kind.__name__} of {facts['version']} has no {name}")
        overloads = parameters(members[name][1])
        assert overloads, f"{kind.__name__}.{name} states no signature"
        for listed in overloads:
            names = [p[0] for p in listed]
            if len(given) > len(listed) or not set(named) <= set(names[len(given) :]):
                continue
            bound = dict(zip(names, given, strict=False)) | named
            if any(n not in bound and not default for n, _, default in listed):
                continue
            kinds = {n: k for n, k, _ in listed}
            if all(fits(v, kinds[n]) for n, v in bound.items()):
                return
        raise TypeError(
            f"{kind.__name__}.{name}() of {facts['version']} takes {overloads}, got {given} {named}"
        )

    def checked(kind: type, name: str, method: Any) -> Any:
        @wraps(method)
        def call(self: Any, *given: Any, **named: Any) -> Any:
            check_call(kind, name, given, named)
            return method(self, *given, **named)

        return call

    class Part:
        """A class of TensorRT's: only what the real one has can be asked of it or set on it."""

        def __init_subclass__(cls, **kw: Any) -> None:
            super().__init_subclass__(**kw)
            if cls.__module__ != __name__:
                return  # streamseg's own subclass of a real one
            for name, value in list(vars(cls).items()):
                if isinstance(value, FunctionType) and (
                    name == "__init__" or not name.startswith("_")
                ):
                    setattr(cls, name, checked(cls, name, value))

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"{type(self).__name__} of {facts['version']} has no {name}")

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_") and type(self).__module__ == __name__:
                kind = members_of(type(self)).get(name, ["", ""])[0]
                if kind != "property":
                    raise AttributeError(f"{type(self).__name__} has no property {name}")
                stand.touched.add(f"{type(self).__name__}.{name}")
            object.__setattr__(self, name, value)

        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("_"):
                kind = type(self)
                if kind.__module__ == __name__ and name not in members_of(kind):
                    raise AttributeError(f"{kind.__name__} of {facts['version']} has no {name}")
                stand.touched.add(f"{kind.__name__}.{name}")
            return object.__getattribute__(self, name)

    class ILogger(Part):
        Severity = _Kind("Severity", facts["enums"]["ILogger.Severity"])

        def __init__(self) -> None:
            pass

    for severity in ILogger.Severity:
        setattr(ILogger, severity.name, severity)

    class IProgressMonitor(Part):
        def __init__(self) -> None:
            pass

    class IHostMemory(Part):
        def __init_subclass__(cls) -> None:
            pass

        def __bytes__(self) -> bytes:
            return self._data

    def host_memory(data: bytes) -> IHostMemory:
        memory = object.__new__(IHostMemory)
        memory._data = data
        return memory

    class ITensor(Part):
        pass

    class IOptimizationProfile(Part):
        def set_shape(self, input, min, opt, max) -> None:
            self._shapes = {input: (tuple(min), tuple(opt), tuple(max))}

    class INetworkDefinition(Part):
        def get_input(self, index):
            tensor = object.__new__(ITensor)
            dims = self._model.graph.input[index].type.tensor_type.shape.dim
            tensor.shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)
            return tensor

    class ITimingCache(Part):
        def serialize(self):
            return host_memory(self._data)

    class IBuilderConfig(Part):
        def set_memory_pool_limit(self, pool, pool_size):
            self._pool = pool_size

        def set_flag(self, flag):
            self._flags.add(flag.name)

        def clear_flag(self, flag):
            self._flags.discard(flag.name)

        def set_tactic_sources(self, tactic_sources):
            return True

        def set_preview_feature(self, feature, enable):
            self._preview = feature.name

        def add_optimization_profile(self, profile):
            self._profile = profile
            return 0

        def create_timing_cache(self, serialized_timing_cache):
            cache = object.__new__(ITimingCache)
            cache._data = bytes(serialized_timing_cache)
            return cache

        def set_timing_cache(self, cache, ignore_mismatch):
            if cache._data and not cache._data.startswith(cuda.name.encode()):
                return False
            self._cache = cache
            return True

        def get_timing_cache(self):
            return self._cache

    class IParserError(Part):
        def desc(self):
            return self._text

    IParserError.__name__ = "ParserError"

    class OnnxParser(Part):
        def __init__(self, network, logger) -> None:
            self._network, self._faults = network, []

        def parse(self, model, path=None):
            try:
                self._network._model = onnx.load_model_from_string(bytes(model))
                self._check(self._network._model)
            except Exception as error:
                self._faults.append(str(error))
            return not self._faults

        def _check(self, model) -> None:
            """TensorRT's rule: uint8 only at the edge, cast from and to floats."""
            graph = model.graph
            for value in (*graph.input, *graph.output):
                assert value.type.tensor_type.elem_type == TensorProto.UINT8
            taken = {i.name for i in graph.input}
            first = [n for n in graph.node if taken & set(n.input)]
            assert [n.op_type for n in first] == ["Cast"]
            floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
            assert all(n.attribute[0].i in floats for n in first)

        @property
        def num_errors(self):
            return len(self._faults)

        def get_error(self, index):
            error = object.__new__(IParserError)
            error._text = self._faults[index]
            return error

    class Builder(Part):
        def __init__(self, logger) -> None:
            self._log = logger

        def create_network(self, flags=0):
            kinds = module.NetworkDefinitionCreationFlag.__members__
            asked = {k for k, v in kinds.items() if flags >> v.value & 1}
            assert asked == ({"STRONGLY_TYPED"} if stand.major >= 10 else {"EXPLICIT_BATCH"})
            return object.__new__(INetworkDefinition)

        def create_builder_config(self):
            config = object.__new__(IBuilderConfig)
            config._flags, config._profile = {"TF32"}, None
            return config

        def create_optimization_profile(self):
            return object.__new__(IOptimizationProfile)

        def build_serialized_network(self, network, config):
            stand.builds += 1
            stand.before_build()
            assert cuda.stack, "TensorRT builds on the device that is current"
            if stand.refuse_build:
                self._log.log(module.ILogger.ERROR, stand.refuse_build)
                return None
            if stand.major >= 10 and not _report(config.progress_monitor, stand.monitor_steps):
                return None
            dynamic = network.get_input(0).shape[0] == -1
            assert dynamic == (config._profile is not None)
            shapes = config._profile._shapes if dynamic else {}
            config._cache._data = f"{cuda.name} {stand.builds}".encode()
            head = json.dumps([facts["version"], shapes, sorted(config._flags)]).encode()
            model = network._model
            if stand.break_masks is not None:
                model = stand.break_masks(model)
            return host_memory(head + b"\n" + model.SerializeToString())

    def _report(monitor, steps) -> bool:
        for name, parent, count in steps:
            monitor.phase_start(name, parent, count)
        for name, _, count in reversed(steps):
            for step in range(count):
                if not monitor.step_complete(name, step):
                    return False
            monitor.phase_finish(name)
        return True

    class Runtime(Part):
        def __init__(self, logger) -> None:
            self._log = logger

        def deserialize_cuda_engine(self, serialized_engine):
            assert cuda.stack
            try:
                head, _, model = bytes(serialized_engine).partition(b"\n")
                version, shapes, flags = json.loads(head)
            except ValueError:
                self._log.log(module.ILogger.ERROR, "Magic tag does not match")
                return None
            if "VERSION_COMPATIBLE" in flags:
                assert self.engine_host_code_allowed
            elif version != facts["version"]:
                self._log.log(module.ILogger.ERROR, "Version tag does not match")
                return None
            engine = object.__new__(ICudaEngine)
            engine._model, engine._shapes = onnx.load_model_from_string(model), shapes
            return engine

    class ICudaEngine(Part):
        @property
        def num_io_tensors(self):
            return len(self._tensors())

        def _tensors(self):
            return [*self._model.graph.input, *self._model.graph.output]

        def get_tensor_name(self, index):
            return self._tensors()[index].name

        def get_tensor_shape(self, name):
            value = next(v for v in self._tensors() if v.name == name)
            dims = value.type.tensor_type.shape.dim
            return tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dims)

        def get_tensor_profile_shape(self, name, profile_index):
            return [tuple(shape) for shape in self._shapes[name]]

        def create_execution_context(self):
            import onnxruntime

            assert cuda.stack
            context = object.__new__(IExecutionContext)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            context._session = onnxruntime.InferenceSession(
                self._model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            context._engine, context._addresses = self, {}
            shape = self.get_tensor_shape(self.get_tensor_name(0))
            context._shape = None if shape[0] == -1 else shape
            context._profile = None
            return context

    class IExecutionContext(Part):
        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return True

        def set_optimization_profile_async(self, profile_index, stream_handle):
            self._profile = profile_index
            return stream_handle in cuda.streams

        def set_input_shape(self, name, shape):
            least, _, most = self._engine._shapes[name]
            self._shape = tuple(shape)
            return self._profile == 0 and least[0] <= shape[0] <= most[0]

        def execute_async_v3(self, stream_handle):
            assert cuda.stack
            if self._shape is None:
                return False
            name = self._engine.get_tensor_name(0)
            result = self._engine.get_tensor_name(1)
            shape = self._shape
            source = cuda.memory[self._addresses[name]]
            target = cuda.memory[self._addresses[result]]

            def job() -> None:
                pictures = source[: int(np.prod(shape))].reshape(shape)
                (labels,) = self._session.run([result], {name: pictures})
                target[: labels.size] = labels.reshape(-1)

            cuda.streams[stream_handle].run(job)
            return True

    for kind in (ILogger, IHostMemory, ITensor, IOptimizationProfile, INetworkDefinition, Builder):
        setattr(module, kind.__name__, kind)
    for kind in (IBuilderConfig, ITimingCache, OnnxParser, Runtime, ICudaEngine, IExecutionContext):
        setattr(module, kind.__name__, kind)
    if "IProgressMonitor" in facts["classes"]:
        module.IProgressMonitor = IProgressMonitor
    return module
