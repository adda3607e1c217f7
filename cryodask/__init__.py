"""Searches of cryo-EM and cryo-ET data on Dask."""

__version__ = "0.1.0"
