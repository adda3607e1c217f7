"""From a template to its product with the tile's spectrum, transformed back along z."""

import numba
import numpy as np

from cryodask.kernels.fused_layout import Layout, Scratch
from cryodask.kernels.simd import LANES, fill, load, store, stream, transpose
from cryodask.kernels.transforms import JIT, ROW, forward, inverse


@numba.njit(**JIT)
def pack_spectrum(
    spectrum: np.ndarray,
    scale: float,
    y_order: np.ndarray,
    z_order: np.ndarray,
    out: np.ndarray,
    edge: np.ndarray,
) -> None:
    """Reorder a half spectrum for the fused passes.

    Parameters
    ----------
    spectrum
        (Pz, Py, Px//2 + 1) complex64.
    scale
        Factor on all values.
    y_order, z_order
        Row of each frequency.
    out
        (blocks, Py, Pz, 2, 16) float32, written: kx < Px//2.
    edge
        (ceil(Py/16), Pz, 2, 16) float32, written: kx = Px//2.
    """
    depth, height, width = spectrum.shape
    out[:] = 0.0
    edge[:] = 0.0
    for z in range(depth):
        row = z_order[z]
        for y in range(height):
            column = y_order[y]
            for k in range(width - 1):
                value = spectrum[z, y, k] * scale
                out[k // LANES, column, row, 0, k % LANES] = value.real
                out[k // LANES, column, row, 1, k % LANES] = value.imag
            value = spectrum[z, y, width - 1] * scale
            edge[column // LANES, row, 0, column % LANES] = value.real
            edge[column // LANES, row, 1, column % LANES] = value.imag


@numba.njit(**JIT)
def half_transform(
    t: Layout, s: Scratch, box: np.ndarray, spectrum: np.ndarray, edge: np.ndarray, out: np.ndarray
) -> None:
    """Correlate a box with the tile up to the inverse transforms along y and x.

    Parameters
    ----------
    t, s
        Layout and scratch.
    box
        (n, n, n) float32, flat.
    spectrum, edge
        The tile's, flat, from :func:`pack_spectrum`.
    out
        (blocks, Tz, rows, 2, 16) float32, flat, written; begins at a multiple of 64 bytes.
    """
    if t.nyquist:
        _edge_forward(t, s, box)
        _edge_product(t, s, edge)
    for block in range(t.blocks):
        _columns(t, s, box, block)
        for i in range(t.rows.size):
            _column_forward(t, s, t.rows[i])
            _finish_column(t, s, s.column, block, i, spectrum, out)


@numba.njit(**JIT)
def half_transform_twice(
    t: Layout,
    s: Scratch,
    box: np.ndarray,
    spectra: tuple[np.ndarray, np.ndarray],
    edges: tuple[np.ndarray, np.ndarray],
    outs: tuple[np.ndarray, np.ndarray],
) -> None:
    """As :func:`half_transform` for two spectra: the box is transformed once."""
    if t.nyquist:
        _edge_forward(t, s, box)
        _edge_product(t, s, edges[0])
    for block in range(t.blocks):
        _columns(t, s, box, block)
        for i in range(t.rows.size):
            _column_forward(t, s, t.rows[i])
            s.second[:] = s.column
            _finish_column(t, s, s.column, block, i, spectra[0], outs[0])
            if block > 0 or not t.nyquist:
                _finish_column(t, s, s.second, block, i, spectra[1], outs[1])
    if t.nyquist:
        _edge_forward(t, s, box)
        _edge_product(t, s, edges[1])
        _columns(t, s, box, 0)
        for i in range(t.rows.size):
            _column_forward(t, s, t.rows[i])
            _finish_column(t, s, s.column, 0, i, spectra[1], outs[1])


@numba.njit(**JIT)
def _columns(t: Layout, s: Scratch, box: np.ndarray, block: int) -> None:
    """Transform a box along x (16 frequencies) and y: (ky row, z < n) rows."""
    n, height = t.box, t.shape[1]
    for z in range(n):
        for y in range(0, n - n % 4, 4):
            _four_rows(t.dft, s.line, box, (z * n + y) * n, n, block * n * ROW, y * ROW)
        for y in range(n - n % 4, n):
            _one_row(t.dft, s.line, box, (z * n + y) * n, n, block * n * ROW, y * ROW)
        s.line[n * ROW : height * ROW] = np.float32(0.0)
        forward(s.line, 0, t.y_table, t.y_twiddles)
        for i in range(t.rows.size):
            row = t.rows[i]
            target = (row * n + z) * ROW
            store(s.columns, target, load(s.line, row * ROW))
            store(s.columns, target + LANES, load(s.line, row * ROW + LANES))


@numba.njit(**JIT)
def _one_row(
    dft: np.ndarray, line: np.ndarray, box: np.ndarray, source: int, n: int, begin: int, target: int
) -> None:
    real, imaginary = fill(np.float32(0.0)), fill(np.float32(0.0))
    for x in range(n):
        value = fill(box[source + x])
        real = real + value * load(dft, begin + x * ROW)
        imaginary = imaginary + value * load(dft, begin + x * ROW + LANES)
    store(line, target, real)
    store(line, target + LANES, imaginary)


@numba.njit(**JIT)
def _four_rows(
    dft: np.ndarray, line: np.ndarray, box: np.ndarray, source: int, n: int, begin: int, target: int
) -> None:
    zero = fill(np.float32(0.0))
    ar, ai, br, bi, cr, ci, dr, di = zero, zero, zero, zero, zero, zero, zero, zero
    for x in range(n):
        wr, wi = load(dft, begin + x * ROW), load(dft, begin + x * ROW + LANES)
        a, b = fill(box[source + x]), fill(box[source + n + x])
        c, d = fill(box[source + 2 * n + x]), fill(box[source + 3 * n + x])
        ar, ai = ar + a * wr, ai + a * wi
        br, bi = br + b * wr, bi + b * wi
        cr, ci = cr + c * wr, ci + c * wi
        dr, di = dr + d * wr, di + d * wi
    store(line, target, ar)
    store(line, target + LANES, ai)
    store(line, target + ROW, br)
    store(line, target + ROW + LANES, bi)
    store(line, target + 2 * ROW, cr)
    store(line, target + 2 * ROW + LANES, ci)
    store(line, target + 3 * ROW, dr)
    store(line, target + 3 * ROW + LANES, di)


@numba.njit(**JIT)
def _column_forward(t: Layout, s: Scratch, row: int) -> None:
    floats = t.box * ROW
    source = row * floats
    for i in range(0, floats, LANES):
        store(s.column, i, load(s.columns, source + i))
    s.column[floats:] = np.float32(0.0)
    forward(s.column, 0, t.z_table, t.z_twiddles)


@numba.njit(**JIT)
def _finish_column(
    t: Layout, s: Scratch, column: np.ndarray, block: int, i: int, spectrum: np.ndarray, out: np.ndarray
) -> None:
    """Multiply by the tile's spectrum, transform back along z, write the valid z."""
    depth, height = t.shape[0], t.shape[1]
    row = t.rows[i]
    multiply_conjugate(column, 0, spectrum, (block * height + row) * depth * ROW, depth)
    if block == 0 and t.nyquist:
        _add_edge(t, s, column, row)
    inverse(column, 0, t.z_table, t.z_twiddles)
    step = t.rows.size * ROW
    target = (block * t.valid[0] * t.rows.size + i) * ROW
    for z in range(t.valid[0]):
        stream(out, target, load(column, z * ROW))
        stream(out, target + LANES, load(column, z * ROW + LANES))
        target += step


@numba.njit(**JIT)
def multiply_conjugate(x: np.ndarray, start: int, spectrum: np.ndarray, begin: int, rows: int) -> None:
    """Replace x by spectrum · conj(x)."""
    for z in range(rows):
        i, j = start + z * ROW, begin + z * ROW
        ur, ui = load(x, i), load(x, i + LANES)
        fr, fi = load(spectrum, j), load(spectrum, j + LANES)
        store(x, i, fr * ur + fi * ui)
        store(x, i + LANES, fi * ur - fr * ui)


@numba.njit(**JIT)
def _edge_forward(t: Layout, s: Scratch, box: np.ndarray) -> None:
    """Transform the plane kx = Px/2 of a box: lines of 16 ky, rows kz."""
    n, depth, height = t.box, t.shape[0], t.shape[1]
    groups = (n + LANES - 1) // LANES
    rows = max(depth, groups * LANES)
    s.nyquist[:] = np.float32(0.0)
    for group in range(groups):
        s.line[:] = np.float32(0.0)
        for lane in range(min(LANES, n - group * LANES)):
            for y in range(n):
                source = ((group * LANES + lane) * n + y) * n
                total = np.float32(0.0)
                for x in range(0, n - 1, 2):
                    total += box[source + x] - box[source + x + 1]
                if n % 2 == 1:
                    total += box[source + n - 1]
                s.line[y * ROW + lane] = total
        forward(s.line, 0, t.y_table, t.y_twiddles)
        for line in range((height + LANES - 1) // LANES):
            target = (line * rows + group * LANES) * ROW
            transpose(s.line, line * LANES * ROW, ROW, s.nyquist, target, ROW)
            transpose(s.line, line * LANES * ROW + LANES, ROW, s.nyquist, target + LANES, ROW)


@numba.njit(**JIT)
def _edge_product(t: Layout, s: Scratch, edge: np.ndarray) -> None:
    depth, height = t.shape[0], t.shape[1]
    rows = max(depth, (t.box + LANES - 1) // LANES * LANES)
    for line in range((height + LANES - 1) // LANES):
        start = line * rows * ROW
        forward(s.nyquist, start, t.z_table, t.z_twiddles)
        multiply_conjugate(s.nyquist, start, edge, line * depth * ROW, depth)


@numba.njit(**JIT)
def _add_edge(t: Layout, s: Scratch, column: np.ndarray, row: int) -> None:
    """Add i times the product at kx = Px/2 to the one at kx = 0."""
    depth = t.shape[0]
    rows = max(depth, (t.box + LANES - 1) // LANES * LANES)
    source = (row // LANES) * rows * ROW + row % LANES
    for z in range(depth):
        column[z * ROW] -= s.nyquist[source + z * ROW + LANES]
        column[z * ROW + LANES] += s.nyquist[source + z * ROW]
