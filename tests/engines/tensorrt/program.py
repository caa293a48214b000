"""The `streamseg` program on the stand-in: python -m tests.engines.tensorrt.program FACTS ..."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.engines.cuda.host_cuda import HostCuda
from tests.engines.cuda.host_graph import HostGraph
from tests.engines.tensorrt.standin import StandIn


def main() -> None:
    facts = json.loads(Path(sys.argv.pop(1)).read_text())
    cuda = HostCuda(devices=2)
    stand = StandIn(facts, cuda)
    stand.before_build = lambda: print("standin: building", file=sys.stderr)
    cuda.install(sys.modules)
    stand.install(sys.modules)
    HostGraph(cuda).install(sys.modules)
    from tools.cli import main as run

    run()


if __name__ == "__main__":
    main()
