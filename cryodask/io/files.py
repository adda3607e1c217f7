"""Names of files: what exists, what may be replaced, and outputs that appear only when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cryodask.errors import InputError
from cryodask.io.remote import require_writable


def is_url(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is an address (``https://``, ``s3://``, ``memory://``) and not a local name."""
    return "://" in os.fspath(path)


def require_exists(path: str | os.PathLike[str]) -> Path:
    """Return the path if something is there.

    Raises
    ------
    InputError
        "NAME: no such file (looked in FOLDER)"; an address, which only OME-Zarr may have.
    """
    if is_url(path):
        raise InputError(f"{os.fspath(path)}: only OME-Zarr is read from an address")
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path.name}: no such file (looked in {path.absolute().parent})")
    return path


def require_new(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be overwritten.

    Raises
    ------
    InputError
        "NAME exists; use --overwrite"; an address that cannot be written.
    """
    if is_url(path):
        require_writable(os.fspath(path), overwrite=overwrite)
    elif not overwrite and Path(path).exists():
        raise InputError(f"{Path(path).name} exists; use --overwrite")


def require_folder(path: str | os.PathLike[str]) -> None:
    """Refuse an address for what is written by many tasks, and renamed when it is complete.

    Raises
    ------
    InputError
        "ADDRESS: a result is written into a folder; copy it to an address when it is complete".
    """
    if is_url(path):
        raise InputError(
            f"{os.fspath(path)}: a result is written into a folder; copy it to an address when it is complete"
        )


@contextmanager
def written_whole(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path` and move it there when the block ends without an error.

    Works for a file and for a folder (a Zarr store). An error removes the temporary and leaves `path`.
    """
    require_new(path, overwrite=overwrite)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
