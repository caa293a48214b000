"""Picture -> what the network gets."""

from __future__ import annotations

from engines.card import Card
from pipeline.roles import Frames, Stage
from pipeline.stages.geometry import to_network


def preprocess(card: Card) -> Stage:
    """Fills in `tensor` from `image`. Normalising is not done here but inside the engine's graph,
    so that it is fused with the network and what crosses to the device is bytes.
    """

    def run(frames: Frames) -> Frames:
        for frame in frames:
            frame.tensor = to_network(frame.held_image, card.input)
            yield frame

    return Stage("preprocess", run, "resizing is the limit: the source's pictures are very large")
