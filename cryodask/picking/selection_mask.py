"""The map that says where particles may be."""

from pathlib import Path

import xarray as xr

from cryodask.errors import InputError
from cryodask.io.volume import open_volume
from cryodask.picking.regions import shape_of


def open_mask(mask: str | Path | xr.DataArray, dataset: xr.Dataset) -> xr.DataArray:
    """Open the mask of a result lazily and check its shape.

    Parameters
    ----------
    mask
        Path, or array (z, y, x).
    dataset
        Result it must fit.

    Raises
    ------
    InputError
        Another shape than the result's maps.
    """
    volume = mask if isinstance(mask, xr.DataArray) else open_volume(mask)
    if volume.shape != shape_of(dataset):
        found, expected = (",".join(map(str, s)) for s in (volume.shape, shape_of(dataset)))
        raise InputError(f"--mask: shape {found}, expected {expected} (result)")
    return volume.rename(dict(zip(volume.dims, "zyx", strict=True)))
