"""Phantoms with known truth."""
