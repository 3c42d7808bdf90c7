"""A film as a table with a frame in each row, in grey and smaller, that `eckart fit` reads; here OpenCV's vtest.avi.

apt-get download opencv-doc && dpkg -x opencv-doc_*.deb opencv
pip install imageio imageio-ffmpeg
python examples/frames.py opencv/usr/share/doc/opencv-doc/examples/data/vtest.avi frames.npy
eckart fit frames.npy --method rsvddpd --picture 96x128 --out still
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

GREY = (0.299, 0.587, 0.114)
"""Of red, green and blue."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("film", type=Path)
    parser.add_argument("out", type=Path, help="the file to write, (frames, pixels)")
    parser.add_argument("--block", type=int, default=6, help="pixels on a side that become one (default: %(default)s)")
    parser.add_argument("--every", type=int, default=6, help="frame that is kept (default: %(default)s)")
    options = parser.parse_args()
    import imageio.v3 as iio

    kept = []
    for at, frame in enumerate(iio.imiter(options.film)):
        if at % options.every == 0:
            grey, block = frame @ np.array(GREY), options.block
            height, width = (side // block for side in grey.shape)
            cut = grey[: height * block, : width * block]
            kept.append(cut.reshape(height, block, width, block).mean(axis=(1, 3)).round())
    frames = np.array(kept, np.float32)
    np.save(options.out, frames.reshape(len(frames), -1))
    print(f"{len(frames)} frames of {frames.shape[1]}x{frames.shape[2]}")


if __name__ == "__main__":
    main()
