"""Which array module (NumPy or CuPy), FFT lengths and memory; the only room that asks "GPU or CPU?"."""
