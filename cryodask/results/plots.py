"""Views of a volume with particles drawn on it."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from cryodask.picking.compare import Comparison
from cryodask.results.pictures import FALSE, FOUND, INK, SOFT, TRUTH, new_figure

View = Literal["slice", "maximum"]
WIDTH = 8.4


class Ring(NamedTuple):
    """Particles drawn alike: (n, 3) positions (z, y, x) in voxels, with a legend entry."""

    places: np.ndarray
    label: str
    colour: str
    style: str
    scale: float


def orthogonal_views(
    volume: xr.DataArray,
    *,
    view: View = "slice",
    voxel_size: float = 1.0,
    rings: Sequence[Ring] = (),
    radius: float = 0.0,
    colours: str = "gray",
    label: str = "",
) -> Figure:
    """Draw a volume from above (x, y) and from the side (x, z) with its particles as circles.

    Parameters
    ----------
    volume
        (z, y, x), lazy or in memory; reduced block by block.
    view
        "slice": mean of a slab one radius thick through the most particles; "maximum": projection.
    voxel_size
        Angstrom; the axes are in nanometres.
    rings
        Particles to draw, from `particle_rings`.
    radius
        Of a particle, in voxels.
    colours
        Name of a matplotlib colour map.
    label
        What the values are, for a colour bar; none if empty.
    """
    deep, wide = volume.sizes["z"], volume.sizes["x"]
    ratio = volume.sizes["y"] / wide, max(deep / wide, 0.12)
    figure = new_figure(WIDTH, WIDTH * sum(ratio) * (0.8 if label else 0.96) + 0.75)
    top, side = figure.subplots(2, 1, sharex=True, height_ratios=ratio)
    at = busiest_place(volume, rings, radius)
    shown = None
    for axes, axis, across in ((top, "z", "y"), (side, "y", "z")):
        image = _reduced(volume, axis, at[axis], view, radius)
        extent = _extent(volume, across, voxel_size)
        shown = _draw_image(axes, image, extent, view, colours)
        _draw_rings(axes, rings, axis, across, at[axis], view, radius, voxel_size)
        axes.set_ylabel(f"{across} (nm)", color=INK)
    side.set_xlabel("x (nm)", color=INK)
    if label and shown is not None:
        figure.colorbar(shown, ax=[top, side], shrink=0.5, pad=0.015, label=label).outline.set_visible(False)
    if rings:
        _legend(figure, rings)
    return figure


def particle_rings(
    picks: pd.DataFrame, truth: pd.DataFrame | None = None, comparison: Comparison | None = None
) -> list[Ring]:
    """Return what to draw: truth, picks that are true and picks that are false, or all picks alike."""
    rings = []
    if truth is not None:
        rings.append(Ring(_places(truth), f"truth ({len(truth)})", TRUTH, "--", 1.18))
    if comparison is None:
        return [*rings, Ring(_places(picks), f"picks ({len(picks)})", FOUND, "-", 1.0)]
    paired = comparison.matches.set_index("pick")["truth"].reindex(range(len(picks))).to_numpy() >= 0
    places = _places(picks)
    rings.append(Ring(places[paired], f"picks, true ({paired.sum()})", FOUND, "-", 1.0))
    if not paired.all():
        rings.append(Ring(places[~paired], f"picks, false ({(~paired).sum()})", FALSE, "-", 1.0))
    return rings


def busiest_place(volume: xr.DataArray, rings: Sequence[Ring], radius: float) -> dict[str, int]:
    """Return the index on each axis whose plane cuts most particles; the middle if there are none."""
    places = np.concatenate([ring.places for ring in rings]) if rings else np.empty((0, 3))
    found = {}
    for column, axis in enumerate("zyx"):
        size = volume.sizes[axis]
        planes = np.arange(size)
        cut = (np.abs(planes[:, None] - places[None, :, column]) <= max(radius / 2, 1)).sum(axis=1)
        best = planes[cut == cut.max()]
        found[axis] = int(best[np.argmin(np.abs(best - size // 2))])
    return found


def _places(table: pd.DataFrame) -> np.ndarray:
    return table[["z", "y", "x"]].to_numpy(float).reshape(-1, 3)


def _reduced(volume: xr.DataArray, axis: str, at: int, view: View, radius: float) -> np.ndarray:
    """Return the image (first remaining axis, x) of a slab or of the whole depth."""
    if view == "maximum":
        return np.asarray(volume.max(axis))
    half = max(int(radius / 2), 0)
    slab = volume.isel({axis: slice(max(at - half, 0), at + half + 1)})
    return np.asarray(slab.mean(axis))


def _extent(volume: xr.DataArray, across: str, voxel_size: float) -> tuple[float, float, float, float]:
    """Return the edges of an image in nanometres, voxel centres on whole multiples."""
    step = voxel_size / 10
    return (
        -0.5 * step,
        (volume.sizes["x"] - 0.5) * step,
        -0.5 * step,
        (volume.sizes[across] - 0.5) * step,
    )


def _draw_image(
    axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float], view: View, colours: str
) -> Any:
    low, high = np.nanpercentile(image, (0.5, 99.5) if view == "slice" else (5, 99.95))
    axes.tick_params(colors=INK, labelsize=9, color=SOFT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(
        image, cmap=colours, origin="lower", extent=extent, vmin=low, vmax=high, interpolation="nearest"
    )


def _draw_rings(
    axes: Axes,
    rings: Sequence[Ring],
    axis: str,
    across: str,
    at: int,
    view: View,
    radius: float,
    voxel_size: float,
) -> None:
    """Draw each particle as the circle in which the plane cuts it, or whole on a projection."""
    for ring in rings:
        columns = dict(zip("zyx", ring.places.T, strict=True))
        depth = np.zeros(len(ring.places)) if view == "maximum" else np.abs(columns[axis] - at)
        near = depth < max(radius, 1)
        cut = np.sqrt(np.maximum(max(radius, 1) ** 2 - depth[near] ** 2, 1.0)) * ring.scale
        patches = [
            Circle((x * voxel_size / 10, y * voxel_size / 10), r * voxel_size / 10)
            for x, y, r in zip(columns["x"][near], columns[across][near], cut, strict=True)
        ]
        axes.add_collection(
            PatchCollection(
                patches, facecolors="none", edgecolors=ring.colour, linestyles=ring.style, linewidths=1.5
            )
        )


def _legend(figure: Figure, rings: Sequence[Ring]) -> None:
    handles = [
        Line2D([], [], marker="o", markersize=9, markerfacecolor="none", color=r.colour, linestyle="none")
        for r in rings
    ]
    figure.legend(
        handles,
        [ring.label for ring in rings],
        loc="outside upper center",
        ncols=len(rings),
        frameon=False,
        labelcolor=INK,
    )
