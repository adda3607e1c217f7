"""Pure array functions; no Dask, xarray or file format is imported here."""
