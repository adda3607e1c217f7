"""Match a tomogram: find every position and orientation at which a template fits."""
