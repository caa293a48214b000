"""People on white, everything else gone: `python examples/cutout.py PHOTO OUT.png`."""

import sys

import cv2

from pipeline import segment

with segment(sys.argv[1]) as frames:
    for frame in frames:
        picture = frame.image.copy()  # uint8 (H, W, 3) RGB
        picture[frame.labels != 15] = 255
        if not cv2.imwrite(sys.argv[2], cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            sys.exit(f"{sys.argv[2]} cannot be written")
