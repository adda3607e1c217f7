"""CTF, missing wedge, dose, spectral filters, whitening and masks."""
