"""Where results and scratch files go, and whether there is room."""

import atexit
import shutil
import tempfile
from pathlib import Path

import dask

from cryodask.errors import ResourceError


def check_disk(folder: Path, size: float) -> None:
    """Refuse where a folder's disk has no room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ResourceError(
            f"{folder}: the results need {size / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free"
        )


def nearest_folder(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def scratch_folder() -> Path:
    """Return a folder that lives until this process ends; workers must see it too."""
    folder = Path(tempfile.mkdtemp(prefix="cryodask-", dir=dask.config.get("temporary-directory", None)))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
