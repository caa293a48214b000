"""The engine alone, several pictures in flight: `python examples/engine.py PHOTO [PHOTO ...]`."""

import sys

from engines.choose import load_engine
from pipeline.sources.images import read_image
from pipeline.stages.geometry import to_network

with load_engine("voc") as engine:
    print(engine.info)
    pictures = [to_network(read_image(path), engine.card.input) for path in sys.argv[1:]]
    pending = [engine.submit(picture) for picture in pictures]  # uint8 (1, h, w, 3) RGB
    for path, answer in zip(sys.argv[1:], pending, strict=True):
        ids = sorted(set(answer.result().ravel().tolist()))  # uint8 (1, h, w)
        print(path, [engine.card.classes[i] for i in ids])
