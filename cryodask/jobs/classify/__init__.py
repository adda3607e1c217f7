"""2D classification of particle stacks with validated classes."""
