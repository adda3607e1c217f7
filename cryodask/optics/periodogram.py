"""Power spectra of pieces of data under a window."""

import numpy as np
import scipy.fft
from scipy.signal import windows


def hann_power(volume: np.ndarray) -> np.ndarray:
    """Return the squared modulus of the half spectrum of a volume, its mean removed, under a Hann window.

    Parameters
    ----------
    volume
        (z, y, x).
    """
    windowed = volume - volume.mean(dtype=np.float64)
    for axis, length in enumerate(volume.shape):
        window = windows.hann(length, sym=False)
        windowed = windowed * np.expand_dims(window, tuple({0, 1, 2} - {axis}))
    return np.abs(scipy.fft.rfftn(windowed)) ** 2
