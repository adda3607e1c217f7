"""Peaks, thresholds and particle tables."""
