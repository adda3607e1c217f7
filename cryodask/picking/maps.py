"""A result to pick from: a stored one, a lazy one, or bare score and angle maps."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.angles import Order, read_angle_list
from cryodask.io.files import is_url, require_exists
from cryodask.io.remote import open_dataset
from cryodask.io.volume import open_volume
from cryodask.picking.regions import NOT_SEARCHED
from cryodask.picking.thresholds import source_name

PICKED_VARIABLES = (
    "score", "score_raw", "zscore", "noise", "decoy", "orientation", "valid", "rescored", "class_id",
    "margin", "euler", "sigma", "n_rotations", "n_voxels", "n_scores",
)  # fmt: skip


@dataclass(frozen=True)
class MapSource:
    """What `pick` is given, by path or as a dataset; the attributes are the parameters of `open_maps`."""

    result: str | Path | xr.Dataset
    angles: str | Path | None = None
    angle_list: str | Path | None = None
    order: Order = "zxz"
    angle_base: int = 0
    voxel_size: float | None = None

    @property
    def is_stored(self) -> bool:
        """Whether another process can open it by its path."""
        return not isinstance(self.result, xr.Dataset)

    def open(self) -> xr.Dataset:
        """Open the maps; see `open_maps`."""
        return open_maps(**vars(self))


@functools.lru_cache(maxsize=4)
def opened(source: MapSource) -> xr.Dataset:
    """Open a stored source once in this process."""
    return source.open()


def open_maps(
    result: str | Path | xr.Dataset,
    *,
    angles: str | Path | None = None,
    angle_list: str | Path | None = None,
    order: Order = "zxz",
    angle_base: int = 0,
    voxel_size: float | None = None,
) -> xr.Dataset:
    """Open what `pick` is given as a dataset of maps (template, z, y, x).

    Parameters
    ----------
    result
        A result store, its dataset, or a bare score map.
    angles, angle_list, order, angle_base
        For a bare map alone: its angle map, the rotation list, the order of that list's columns, and the
        number the map gives to the first row.
    voxel_size
        Angstrom, for a bare map whose header has none.

    Raises
    ------
    InputError
        A missing file, or options that do not fit the kind of result.
    """
    stored = _loaded(result) if isinstance(result, xr.Dataset) else open_stored(result)
    if stored is not None:
        bare_only = (angles, angle_list, order, angle_base, voxel_size)
        _check_result(stored, given=bare_only != (None, None, "zxz", 0, None))
        return stored
    if angles is None or angle_list is None:
        raise InputError(f"{result}: a bare score map needs --angles and --angle-list")
    return bare_maps(
        str(result), str(angles), Path(angle_list), order=order, angle_base=angle_base, voxel_size=voxel_size
    )


def open_stored(path: str | Path) -> xr.Dataset | None:
    """Open a result store lazily, or return None if the path holds no result but a single map."""
    if is_url(path):
        dataset = open_dataset(str(path))
    else:
        place = require_exists(path)
        if place.name.endswith(".partial.zarr"):
            raise InputError(f"{place}: an unfinished run; finish it with --resume")
        if not place.is_dir():
            return None
        dataset = xr.open_zarr(place, consolidated=False)
    if "orientation" not in dataset:
        dataset.close()
        return None
    dataset.attrs.setdefault("source", str(path))
    return dataset


def _loaded(dataset: xr.Dataset) -> xr.Dataset:
    """Compute a lazy result once; a stored one stays lazy and is read region by region."""
    if all(dataset[n].encoding.get("chunks") or dataset[n].chunks is None for n in dataset.data_vars):
        return dataset
    wanted = [name for name in PICKED_VARIABLES if name in dataset]
    return dataset[wanted].compute()


def _check_result(dataset: xr.Dataset, *, given: bool) -> None:
    """Refuse a dataset that is no result of a search, and options that only bare maps take."""
    name = source_name(dataset)
    missing = [v for v in ("score", "orientation", "euler") if v not in dataset]
    if missing:
        raise InputError(f"{name}: not the result of a search, it has no {', '.join(missing)}")
    if given:
        raise InputError(
            f"{name}: --angles, --angle-list, --order, --angle-base, --voxel-size are for bare score maps"
        )


def bare_maps(
    scores: str,
    angles: str,
    angle_list: Path,
    *,
    order: Order = "zxz",
    angle_base: int = 0,
    voxel_size: float | None = None,
) -> xr.Dataset:
    """Bring a score map, an angle map and a rotation list of another program into the form of a result.

    Raises
    ------
    InputError
        Maps of different shape, or a voxel size that is neither in the header nor given.
    """
    score, rows = open_volume(scores), open_volume(angles)
    if score.shape != rows.shape:
        found, expected = (",".join(map(str, s.shape)) for s in (rows, score))
        raise InputError(f"{angles}: shape {found}, expected {expected} ({Path(scores).name})")
    voxel = voxel_size or score.attrs.get("voxel_size")
    if voxel is None:
        raise InputError(f"{scores}: the header gives no voxel size, set --voxel-size")
    origin = score.attrs.get("origin", (0.0, 0.0, 0.0))
    euler = read_angle_list(angle_list, order=order)
    return xr.Dataset(
        {
            "score": (("template", "z", "y", "x"), score.data[None]),
            "orientation": (("template", "z", "y", "x"), _zero_based(rows, angle_base).data[None]),
            "euler": (("template", "row", "axis"), np.asarray(euler)[None]),
        },
        attrs={
            "voxel_size": float(voxel),
            "origin": tuple(float(o) for o in origin),
            "tomo_name": Path(scores).stem,
            "template_names": ["template"],
            "source": scores,
            "angle_base": angle_base,
            "bare": True,
        },
    )


def _zero_based(rows: xr.DataArray, base: int) -> xr.DataArray:
    """Return list rows counted from 0 as uint32, NOT_SEARCHED where the map is below the first row."""

    def convert(block: np.ndarray) -> np.ndarray:
        # NaN and numbers below the base both mean: not searched.
        searched = np.nan_to_num(block, nan=base - 1) > base - 0.5
        found = np.rint(np.where(searched, block, base)).astype(np.int64) - base
        return np.where(searched, found, NOT_SEARCHED).astype(np.uint32)

    return xr.apply_ufunc(convert, rows, dask="parallelized", output_dtypes=[np.uint32])
