"""Segmented frames of a video in a loop: `python examples/frames.py VIDEO`."""

import sys

from pipeline import segment

with segment(sys.argv[1], max_frames=100) as frames:
    for frame in frames:
        person = (frame.labels == 15).mean()  # class ids, uint8 (H, W); 15 is VOC's person
        print(f"{frame.time_s:7.3f} s: {person:6.1%} of the picture is a person")
