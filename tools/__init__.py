"""The commands of the `streamseg` program: they parse, call and print."""

import time

STARTED_AT = time.perf_counter()
"""When the command started, before anything that takes time was imported."""
