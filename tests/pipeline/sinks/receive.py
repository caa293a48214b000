"""A receiver as a process of its own: prints the number in each picture that arrives.

python -m tests.pipeline.sinks.receive URL [key=value ...]
"""

from __future__ import annotations

import sys

import av

from pipeline.sources.synthetic import read_number


def main() -> None:
    url, words = sys.argv[1], sys.argv[2:]
    options = dict(word.split("=", 1) for word in words)
    print("ready", flush=True)
    with av.open(url, options=options) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        print(f"codec {stream.codec_context.name}", flush=True)
        for frame in container.decode(stream):
            print(f"frame {read_number(frame.to_ndarray(format='rgb24'))}", flush=True)


if __name__ == "__main__":
    main()
