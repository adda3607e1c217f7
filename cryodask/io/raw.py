"""Volumes stored as one contiguous array behind a header: what MRC and EM files have in common."""

import bz2
import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from cryodask.errors import InputError, ResourceError
from cryodask.io.header import Slices
from cryodask.io.statistics import RunningStatistics

COMPRESSED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open}


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading, through gzip or bzip2 where its suffix says so."""
    opener = COMPRESSED.get(path.suffix.lower())
    return opener(path, "rb") if opener else path.open("rb")


@dataclass(frozen=True)
class RawLayout:
    """Where the voxels of a file lie: `stored_shape` is slowest first, `axes` brings it to (z, y, x)."""

    path: Path
    dtype: np.dtype
    offset: int
    stored_shape: tuple[int, int, int]
    axes: tuple[int, int, int] = (0, 1, 2)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape in (z, y, x) order."""
        z, y, x = (self.stored_shape[axis] for axis in self.axes)
        return z, y, x

    @property
    def compressed(self) -> bool:
        """Whether the file must be read through a decompressor."""
        return self.path.suffix.lower() in COMPRESSED

    def check_size(self) -> None:
        """Raise InputError with expected and found bytes if the file ends before its voxels do."""
        expected = self.offset + int(np.prod(self.stored_shape, dtype=np.int64)) * self.dtype.itemsize
        found = self.path.stat().st_size
        if not self.compressed and found < expected:
            raise InputError(f"{self.path.name}: truncated, expected {expected} bytes, found {found}")

    def read(self, slices: Slices) -> np.ndarray:
        """Read one region in native byte order, C order (z, y, x); nothing else of the file is touched."""
        stored = [slice(None)] * 3
        for axis, part in zip(self.axes, slices, strict=True):
            stored[axis] = part
        shape = [len(range(*s.indices(n))) for s, n in zip(stored, self.stored_shape, strict=True)]
        block = np.empty(shape, self.dtype.newbyteorder("="))
        planes = self._decompressed if self.compressed else self._mapped
        for target, plane in zip(block, planes(stored[0]), strict=True):
            target[...] = plane[stored[1], stored[2]]
        return np.ascontiguousarray(block.transpose(self.axes))

    @property
    def _plane_bytes(self) -> int:
        return self.stored_shape[1] * self.stored_shape[2] * self.dtype.itemsize

    def _mapped(self, part: slice) -> Iterator[np.ndarray]:
        # One map a plane, dropped when it is copied: pages of a larger map count as memory in use.
        for index in range(*part.indices(self.stored_shape[0])):
            offset = self.offset + index * self._plane_bytes
            yield np.memmap(self.path, self.dtype, mode="r", offset=offset, shape=self.stored_shape[1:])

    def _decompressed(self, part: slice) -> Iterator[np.ndarray]:
        with open_binary(self.path) as file:
            file.seek(self.offset + part.indices(self.stored_shape[0])[0] * self._plane_bytes)
            for index in range(*part.indices(self.stored_shape[0])):
                data = file.read(self._plane_bytes)
                if len(data) < self._plane_bytes:
                    found = self.offset + index * self._plane_bytes + len(data)
                    raise InputError(f"{self.path.name}: truncated, {found} bytes after decompression")
                yield np.frombuffer(data, self.dtype).reshape(self.stored_shape[1:])


class RawWriter:
    """Writes blocks (z, y, x) of a volume behind a header that is made last, from their statistics."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        *,
        header_bytes: int,
        make_header: Callable[[RunningStatistics], bytes],
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._offset, self._make_header = header_bytes, make_header
        self._statistics = RunningStatistics()
        self._file = path.open("wb")
        self._reserve(path, header_bytes + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)

    def _reserve(self, path: Path, size: int) -> None:
        # A full disk is reported before hours of work, not after.
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, size)
            else:
                self._file.truncate(size)
        except OSError as error:
            self._file.close()
            raise ResourceError(f"{path.parent}: no space for {size} bytes ({error.strerror})") from error

    def write(self, slices: Slices, block: np.ndarray) -> None:
        """Write one block at its place."""
        z, y, x = slices
        block = np.ascontiguousarray(block, dtype=self.dtype)
        self._statistics.update(block)
        rows, columns = self.shape[1:]
        if x != slice(0, columns):
            runs = [(zi, yi, block[zi - z.start, yi - y.start]) for zi in _range(z) for yi in _range(y)]
        elif y != slice(0, rows):
            runs = [(zi, y.start, block[zi - z.start]) for zi in _range(z)]
        else:
            runs = [(z.start, 0, block)]
        for zi, yi, run in runs:
            self._file.seek(self._offset + ((zi * rows + yi) * columns + x.start) * self.dtype.itemsize)
            self._file.write(run.data)

    def __enter__(self) -> "RawWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._file.write(self._make_header(self._statistics))


def _range(part: slice) -> range:
    return range(part.start, part.stop)
