"""Many small pictures in one: class averages side by side, with a line of text under each."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cryodask.results.pictures import INK, figure_png, new_figure

CELL, TEXT = 1.05, 0.17  # inches: a picture, and a line under it
MOST_COLUMNS = 10
CONTRAST = (1.0, 99.7)  # percentiles of a picture that are black and white

_DRAWING = threading.Lock()  # fonts and layouts of matplotlib are not for several threads


def montage(pictures: np.ndarray, labels: Sequence[str], *, columns: int | None = None) -> Figure:
    """Draw pictures (n, y, x), each in its own contrast, with its label below; n may be 0."""
    count = len(pictures)
    columns = columns or max(1, min(MOST_COLUMNS, int(np.ceil(np.sqrt(1.6 * max(count, 1))))))
    rows = max(1, -(-count // columns))
    lines = max([label.count("\n") + 1 for label in labels], default=1)
    figure = new_figure(columns * CELL, rows * (CELL + lines * TEXT))
    grid = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, picture, label in zip(grid, pictures, labels, strict=False):
        low, high = np.percentile(picture, CONTRAST)
        axes.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), origin="lower")
        axes.text(0.5, -0.03, label, transform=axes.transAxes, ha="center", va="top", fontsize=7, color=INK)
    return figure


def write_montage(path: Path, pictures: np.ndarray, labels: Sequence[str]) -> None:
    """Write a montage as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _DRAWING:
        path.write_bytes(figure_png(montage(pictures, labels)))
