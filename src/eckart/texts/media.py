"""Images and sounds from files, as arrays."""

from __future__ import annotations

import importlib
import warnings
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eckart.errors import Refused


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image as (height, width, 3), red, green and blue in 0..255.

    Raises:
        Refused: Pillow is not installed, or the file cannot be read.
    """
    try:
        image: Any = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise Refused("images are read by Pillow, which is missing: pip install 'eckart[media]'") from error
    try:
        with image.open(path) as opened:
            return np.asarray(opened.convert("RGB"))
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError) as error:
        raise Refused(f"{path} cannot be read as an image: {error}") from error


def read_sound(path: Path, rate: int) -> NDArray[np.float32]:
    """A `.wav` file as (samples,) in -1..1, its channels averaged, at `rate` samples a second.

    Raises:
        Refused: the file cannot be read, or holds no sound.
    """
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of parts of the file that are no sound
            own, data = wavfile.read(path)
    except (OSError, ValueError, EOFError) as error:
        raise Refused(f"{path} cannot be read as .wav: {error}") from error
    if not data.size or own < 1:
        raise Refused(f"{path} holds no sound")
    sound = data.astype(np.float64)
    if data.dtype.kind in "iu":
        middle = 128.0 if data.dtype == np.uint8 else 0.0
        sound = (sound - middle) / (128.0 if data.dtype == np.uint8 else float(np.iinfo(data.dtype).max) + 1)
    if sound.ndim == 2:
        sound = sound.mean(1)
    if own != rate:
        from scipy.signal import resample_poly  # which takes longer to load than most texts do

        common = gcd(own, rate)
        sound = resample_poly(sound, rate // common, own // common)
    found: NDArray[np.float32] = sound.astype(np.float32)
    return found
