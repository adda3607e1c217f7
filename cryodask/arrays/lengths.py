"""Lengths on which fast Fourier transforms are fast."""

import scipy.fft


def fast_even_length(at_least: int) -> int:
    """Return the least even 2,3,5-smooth length that is not below `at_least` (a real FFT needs it even)."""
    return 2 * scipy.fft.next_fast_len((max(int(at_least), 2) + 1) // 2, real=True)
