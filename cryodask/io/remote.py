"""Addresses (`https://`, `s3://`, `memory://`): Zarr stores reached through fsspec, in three tries."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from cryodask.errors import InputError

if TYPE_CHECKING:
    import xarray

TRIES = 3
PAUSE = 0.2  # seconds before the second try, twice as many before the third
FINAL = (FileNotFoundError, ImportError)  # another try would end alike
MARKS = ("zarr.json", ".zgroup", ".zarray")

Found = TypeVar("Found")


def reached(address: str, read: Callable[[], Found]) -> Found:
    """Return what `read` gets from an address; what fails there may be anything, and may pass.

    Raises
    ------
    InputError
        "ADDRESS: REASON" after three tries, at once where nothing is there or a package is missing.
    """
    tries = 0
    while True:
        try:
            return read()
        except InputError:
            raise
        except Exception as error:
            tries += 1
            if tries == TRIES or isinstance(error, FINAL):
                raise InputError(f"{address}: {_reason(error)}") from error
            time.sleep(PAUSE * tries)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return f"no Zarr store there ({text})"
    if isinstance(error, ImportError):
        return f"{text}; cryodask[remote] brings what https:// needs"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def require_writable(address: str, *, overwrite: bool) -> None:
    """Refuse an address that cannot be written, or where a Zarr store lies that may not be overwritten.

    Raises
    ------
    InputError
        "ADDRESS exists; use --overwrite", or as `reached`.
    """
    from fsspec.core import url_to_fs

    if address.startswith(("http://", "https://")):
        raise InputError(f"{address}: {address.partition(':')[0]}:// is read, not written")

    def is_taken() -> bool:
        files, place = url_to_fs(address)
        return any(files.exists(f"{place}/{mark}") for mark in MARKS)

    if reached(address, is_taken) and not overwrite:
        raise InputError(f"{address} exists; use --overwrite")


def open_dataset(address: str) -> "xarray.Dataset":
    """Open the arrays of a Zarr store lazily; one request tells them where its metadata are consolidated.

    Raises
    ------
    InputError
        As `reached`; no arrays, or none that a server without lists of folders could show.
    """
    import xarray

    def opened() -> "xarray.Dataset":
        try:
            return xarray.open_zarr(address, consolidated=True)
        except ValueError:
            return xarray.open_zarr(address, consolidated=False)

    dataset = reached(address, opened)
    if not dataset.data_vars:
        raise InputError(f"{address}: no arrays found (the server may not list folders)")
    return dataset
