"""MRC, REC and MAP files: every real mode, either byte order, any axis order, IMOD's unsigned bytes.

Cheng et al. (2015), "MRC2014: extensions to the MRC format header for electron cryo-microscopy and
tomography", and IMOD's description of its flags. Header layout and mode numbers come from mrcfile.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from cryodask.errors import InputError
from cryodask.io.header import Slices, Triple, VolumeHeader, known_spacing
from cryodask.io.raw import RawLayout, RawWriter, open_binary
from cryodask.io.statistics import RunningStatistics

HEADER_BYTES = 1024
MODES = (0, 1, 2, 6, 12)
DTYPES = tuple(np.dtype(t) for t in ("i1", "i2", "u2", "f2", "f4"))
IMOD_STAMP = 1146047817
IMOD_STAMP_AT = 40
SIGNED_BYTES = 1
LARGEST_EDGE = 1 << 20
VOLUME_STACK_SPACE_GROUP = 401


def read_header(path: Path) -> VolumeHeader:
    """Read shape, type, voxel size and origin from the header alone.

    The origin is the header's ORIGIN field or, where that is zero, its start indices times the voxel size.

    Raises
    ------
    InputError
        Not an MRC file, a mode without real numbers, a stack of volumes, a file shorter than its header says.
    """
    header, layout = _parse(path)
    spacing = _spacing(header)
    return VolumeHeader(
        "mrc", layout.shape, layout.dtype.newbyteorder("="), spacing, _origin(header, spacing)
    )


def read_block(path: Path, slices: Slices) -> np.ndarray:
    """Read one region (z, y, x) as stored, through a memory map."""
    return _parse(path)[1].read(slices)


def writer(
    path: Path, shape: tuple[int, int, int], dtype: np.dtype, spacing: Triple | None, origin: Triple
) -> RawWriter:
    """Return a writer of blocks into a new little-endian MRC2014 volume."""

    def make_header(statistics: RunningStatistics) -> bytes:
        return _new_header(shape, dtype, spacing, origin, statistics).tobytes()

    return RawWriter(path, shape, dtype.newbyteorder("<"), header_bytes=HEADER_BYTES, make_header=make_header)


def _parse(path: Path) -> tuple[Any, RawLayout]:
    with open_binary(path) as file:
        data = file.read(HEADER_BYTES)
    if len(data) < HEADER_BYTES:
        raise InputError(
            f"{path.name}: truncated, expected a header of {HEADER_BYTES} bytes, found {len(data)}"
        )
    header, order = _decode(path, data)
    layout = RawLayout(
        path=path,
        dtype=_dtype(path, header).newbyteorder(order),
        offset=HEADER_BYTES + int(header["nsymbt"]),
        stored_shape=(int(header["nz"]), int(header["ny"]), int(header["nx"])),
        axes=_axes(header),
    )
    layout.check_size()
    return header, layout


def _decode(path: Path, data: bytes) -> tuple[Any, Literal["<", ">"]]:
    from mrcfile.dtypes import HEADER_DTYPE

    big_endian_stamp = data[212] == 0x11
    orders: tuple[Literal["<", ">"], ...] = (">", "<") if big_endian_stamp else ("<", ">")
    for order in orders:
        header = np.frombuffer(data, HEADER_DTYPE.newbyteorder(order))[0]
        if _plausible(header):
            return header, order
    raise InputError(f"{path.name}: not an MRC file (no byte order gives a sensible header)")


def _plausible(header: Any) -> bool:
    edges = (header["nx"], header["ny"], header["nz"])
    return (
        all(0 < edge <= LARGEST_EDGE for edge in edges)
        and 0 <= header["mode"] < 128
        and 0 <= header["mapc"] <= 3
    )


def _dtype(path: Path, header: Any) -> np.dtype:
    from mrcfile.utils import dtype_from_mode

    mode = int(header["mode"])
    if mode not in MODES:
        raise InputError(f"{path.name}: mode {mode}, expected one of {', '.join(map(str, MODES))}")
    if int(header["ispg"]) >= VOLUME_STACK_SPACE_GROUP:
        raise InputError(f"{path.name}: a stack of volumes, expected one volume")
    if mode == 0 and _has_unsigned_bytes(header):
        return np.dtype("u1")
    return np.dtype(dtype_from_mode(mode))


def _has_unsigned_bytes(header: Any) -> bool:
    raw = header["extra2"].tobytes()[IMOD_STAMP_AT : IMOD_STAMP_AT + 8]
    order = ">" if header.dtype["nx"].str.startswith(">") else "<"
    stamp, flags = np.frombuffer(raw, f"{order}i4")
    return stamp == IMOD_STAMP and not flags & SIGNED_BYTES


def _map_order(header: Any) -> tuple[int, int, int]:
    """Axis numbers (x 1, y 2, z 3) of sections, rows and columns."""
    order = (int(header["maps"]), int(header["mapr"]), int(header["mapc"]))
    return order if sorted(order) == [1, 2, 3] else (3, 2, 1)


def _axes(header: Any) -> tuple[int, int, int]:
    order = _map_order(header)
    return order.index(3), order.index(2), order.index(1)


def _spacing(header: Any) -> Triple | None:
    grid = [int(header[name]) for name in ("mz", "my", "mx")]
    cell = [float(header["cella"][axis]) for axis in "zyx"]
    return known_spacing([length / n if n > 0 else 0.0 for length, n in zip(cell, grid, strict=True)])


def _origin(header: Any, spacing: Triple | None) -> Triple:
    z, y, x = (float(f"{float(header['origin'][axis]):.6g}") for axis in "zyx")
    if (z, y, x) != (0.0, 0.0, 0.0) or spacing is None:
        return z, y, x
    start = dict(
        zip(_map_order(header), (header["nzstart"], header["nystart"], header["nxstart"]), strict=True)
    )
    z, y, x = (int(start[axis]) * step for axis, step in zip((3, 2, 1), spacing, strict=True))
    return z, y, x


def _new_header(
    shape: tuple[int, int, int],
    dtype: np.dtype,
    spacing: Triple | None,
    origin: Triple,
    statistics: RunningStatistics,
) -> np.ndarray:
    from mrcfile.dtypes import HEADER_DTYPE
    from mrcfile.utils import mode_from_dtype

    header = np.zeros((), HEADER_DTYPE)
    for axis, edge, step, place in zip("zyx", shape, spacing or (0.0, 0.0, 0.0), origin, strict=True):
        header[f"n{axis}"] = header[f"m{axis}"] = edge
        header["cella"][axis] = edge * step
        header["origin"][axis] = place
    header["mode"] = mode_from_dtype(dtype.newbyteorder("="))
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["cellb"] = (90.0, 90.0, 90.0)
    header["ispg"], header["nversion"] = 1, 20141
    header["map"], header["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    # What MRC2014 writes for statistics that are not known.
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = 0, -1, -2, -1
    if statistics.count:
        header["dmin"], header["dmax"] = statistics.minimum, statistics.maximum
        header["dmean"], header["rms"] = statistics.mean, statistics.std
    header["nlabl"], header["label"][0] = 1, b"Written by cryodask"
    return header
