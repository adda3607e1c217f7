"""EM files: a 512-byte header, then the voxels with x fastest (TOM, PyTom, STOPGAP, av3)."""

from pathlib import Path

import numpy as np

from cryodask.errors import InputError
from cryodask.io.header import Slices, Triple, VolumeHeader, known_spacing
from cryodask.io.raw import RawLayout, RawWriter
from cryodask.io.statistics import RunningStatistics

HEADER_BYTES = 512
LITTLE_ENDIAN_MACHINES = (1, 2, 6)
BIG_ENDIAN_MACHINES = (0, 3, 4, 5)
TYPES = {1: "i1", 2: "i2", 4: "i4", 5: "f4", 9: "f8"}
DTYPES = tuple(np.dtype(t) for t in TYPES.values())
PC = 6
# Parameter 7 of the header, the pixel size in the object plane, in thousandths of an angstrom.
PIXEL_SIZE_AT = 96 + 6 * 4


def read_header(path: Path) -> VolumeHeader:
    """Read shape, type and voxel size from the header; an EM file has no origin.

    Raises
    ------
    InputError
        Unknown machine or data type, or a file shorter than its header says.
    """
    data, layout = _parse(path)
    pixel = int(np.frombuffer(data, f"{_order(path, data)}i4", 1, PIXEL_SIZE_AT)[0])
    return VolumeHeader(
        "em", layout.shape, layout.dtype.newbyteorder("="), known_spacing([max(pixel, 0) / 1000] * 3)
    )


def read_block(path: Path, slices: Slices) -> np.ndarray:
    """Read one region (z, y, x) as stored, through a memory map."""
    return _parse(path)[1].read(slices)


def writer(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, spacing: Triple | None, origin: Triple
) -> RawWriter:
    """Return a writer of blocks into a new little-endian EM volume; the origin has no place in it."""
    header = bytearray(HEADER_BYTES)
    header[0], header[3] = PC, _type_number(dtype)
    header[4:16] = np.array(shape[::-1], "<i4").tobytes()
    pixel = round(1000 * sum(spacing) / 3) if spacing else 0
    header[PIXEL_SIZE_AT : PIXEL_SIZE_AT + 4] = np.array(pixel, "<i4").tobytes()

    def make_header(statistics: RunningStatistics) -> bytes:
        return bytes(header)

    return RawWriter(path, shape, dtype.newbyteorder("<"), header_bytes=HEADER_BYTES, make_header=make_header)


def _type_number(dtype: np.dtype) -> int:
    return next(number for number, name in TYPES.items() if np.dtype(name) == dtype.newbyteorder("="))


def _order(path: Path, data: bytes) -> str:
    if data[0] in LITTLE_ENDIAN_MACHINES:
        return "<"
    if data[0] in BIG_ENDIAN_MACHINES:
        return ">"
    raise InputError(f"{path.name}: machine byte {data[0]}, expected 0 to 6 (not an EM file?)")


def _parse(path: Path) -> tuple[bytes, RawLayout]:
    with path.open("rb") as file:
        data = file.read(HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        raise InputError(
            f"{path.name}: truncated, expected a header of {HEADER_BYTES} bytes, found {len(data)}"
        )
    order = _order(path, data)
    if data[3] not in TYPES:
        raise InputError(f"{path.name}: data type {data[3]}, expected one of {', '.join(map(str, TYPES))}")
    x, y, z = np.frombuffer(data, f"{order}i4", 3, 4).tolist()
    if min(x, y, z) < 1:
        raise InputError(f"{path.name}: edges {x}, {y}, {z}, expected positive numbers")
    layout = RawLayout(path, np.dtype(order + TYPES[data[3]]), HEADER_BYTES, (z, y, x))
    layout.check_size()
    return data, layout
