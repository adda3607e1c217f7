"""Rotations and Euler conventions, orientation grids, symmetry."""
