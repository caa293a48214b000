"""A stage of one's own between the network and the file: `python examples/own_stage.py IN OUT.mp4`.

It blurs everything that is not a person. A stage is a generator function, frames in, frames out; it
runs in a thread of its own, and whatever it opens in a `with` block is closed however the run ends.
"""

import sys

import cv2

from engines.choose import load_engine
from pipeline import Pipeline, Stage, open_source
from pipeline.sinks import open_output
from pipeline.stages import colorize, infer, preprocess


def blur_background(frames):
    for frame in frames:
        blurred = cv2.GaussianBlur(frame.image, (0, 0), 8)
        person = cv2.compare(frame.labels, 15.0, cv2.CMP_EQ)
        frame.picture = cv2.copyTo(frame.image, person, blurred)
        yield frame


def main(source_path, output_path):
    source = open_source(source_path)
    sink = open_output(output_path, source, force=True)
    with load_engine("voc") as engine:
        stages = [preprocess(engine.card), infer(engine), colorize(engine.card)]
        pipeline = Pipeline(source, [*stages, Stage("blur", blur_background)], [sink])
        pipeline.run()
    print(pipeline.ledger)


if __name__ == "__main__":
    main(*sys.argv[1:])
