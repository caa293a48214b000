"""cuda.bindings.driver on the host: capturing what a HostCuda stream is given, and replaying it.

It keeps CUDA's rules: while a stream captures, nothing runs and nobody may wait for it; who does
spoils the capture. Graphs that are not destroyed are counted.
"""

from __future__ import annotations

import enum
import sys
from types import ModuleType

# What engines/cuda/graph.py calls, and how many arguments it gives.
CALLS = {
    "cuStreamBeginCapture": 2,
    "cuStreamEndCapture": 1,
    "cuGraphInstantiate": 2,
    "cuGraphLaunch": 2,
    "cuGraphDestroy": 1,
    "cuGraphExecDestroy": 1,
}


class HostGraph:
    """`module` stands in for cuda.bindings.driver."""

    def __init__(self, cuda) -> None:
        self.failing: set[str] = set()
        """Names of calls that refuse."""
        self.live = 0
        """Graphs and executable ones that nobody has destroyed."""
        self.launches = 0
        graphs = self

        class CUresult(enum.IntEnum):
            CUDA_SUCCESS = 0
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
            CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901

        class CUstreamCaptureMode(enum.IntEnum):
            CU_STREAM_CAPTURE_MODE_GLOBAL = 0
            CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

        class CUstream:
            def __init__(self, handle: int) -> None:
                self.stream = cuda.streams[handle]

        def answers(function):
            def call(*given):
                assert len(given) == CALLS[function.__name__]
                assert cuda.stack, f"{function.__name__} without a current context"
                if function.__name__ in graphs.failing:
                    if function.__name__ == "cuStreamEndCapture":
                        given[0].stream.capturing = None
                        return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
                    return (CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, None)[
                        : 1 if function.__name__ in ("cuStreamBeginCapture", "cuGraphLaunch") else 2
                    ]
                return function(*given)

            setattr(graphs.module, function.__name__, call)

        self.module = ModuleType("cuda.bindings.driver")
        for kind in (CUresult, CUstreamCaptureMode, CUstream):
            setattr(self.module, kind.__name__, kind)

        @answers
        def cuStreamBeginCapture(stream, mode):  # noqa: N802
            assert mode is CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
            assert stream.stream.capturing is None
            stream.stream.capturing = []
            return (CUresult.CUDA_SUCCESS,)

        @answers
        def cuStreamEndCapture(stream):  # noqa: N802
            jobs, stream.stream.capturing = stream.stream.capturing, None
            if None in jobs:
                return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
            graphs.live += 1
            return CUresult.CUDA_SUCCESS, jobs

        @answers
        def cuGraphInstantiate(graph, flags):  # noqa: N802
            assert flags == 0
            graphs.live += 1
            return CUresult.CUDA_SUCCESS, list(graph)

        @answers
        def cuGraphLaunch(executable, stream):  # noqa: N802
            graphs.launches += 1
            for job in executable:
                stream.stream.run(job)
            return (CUresult.CUDA_SUCCESS,)

        @answers
        def cuGraphDestroy(graph):  # noqa: N802
            graphs.live -= 1
            return (CUresult.CUDA_SUCCESS,)

        @answers
        def cuGraphExecDestroy(executable):  # noqa: N802
            graphs.live -= 1
            return (CUresult.CUDA_SUCCESS,)

    def install(self, modules=sys.modules) -> None:
        package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
        package.bindings, bindings.driver = bindings, self.module
        modules["cuda"], modules["cuda.bindings"] = package, bindings
        modules["cuda.bindings.driver"] = self.module
