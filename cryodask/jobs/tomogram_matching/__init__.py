"""Match a tomogram: find where, and turned how, a template fits."""
