"""Makes ../data/resize.json: small pictures resized by Pillow and OpenCV.

    pip install numpy pillow opencv-python-headless
    python resize.py > ../data/resize.json
"""

import json

import cv2
import numpy as np
from PIL import Image


def pattern(width, height):
    """The picture that the test makes, too: slopes and noise."""
    state, picture = 0x9E3779B9, np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                state ^= (state << 13) & 0xFFFFFFFF
                state ^= state >> 17
                state ^= (state << 5) & 0xFFFFFFFF
                picture[y, x, c] = ((x * 7 + y * 5 + c * 40) % 256 + (state >> 24) // 4) % 256
    return picture


cases = []
sizes = [((23, 17), (9, 7)), ((9, 7), (20, 15)), ((32, 24), (16, 12)), ((11, 40), (11, 6)), ((5, 20), (13, 20)), ((100, 3), (7, 5))]
for (width, height), size in sizes:
    picture = pattern(width, height)
    results = {
        "pillow-bicubic": Image.fromarray(picture).resize(size, Image.BICUBIC),
        "pillow-bilinear": Image.fromarray(picture).resize(size, Image.BILINEAR),
        "opencv-linear": cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR),
    }
    for name, result in results.items():
        values = np.asarray(result).ravel().tolist()
        cases.append(json.dumps([name, width, height, *size, values], separators=(",", ":")))
print("[\n" + ",\n".join(cases) + "\n]")
