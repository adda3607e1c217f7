"""The report of a matched tomogram: what was done, how well, and how it looks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from cryodask.io.volume import open_volume
from cryodask.picking.compare import Comparison, compare
from cryodask.picking.maps import open_maps
from cryodask.results.charts import orientation_map, roc_figure, score_histogram
from cryodask.results.pictures import Picture
from cryodask.results.plots import orthogonal_views, particle_rings
from cryodask.results.report import write_report

TABLE_ROWS = 12


def match_report(
    path: str | Path,
    dataset: str | Path | xr.Dataset,
    picks: pd.DataFrame,
    *,
    tomogram: str | Path | xr.DataArray | None = None,
    truth: pd.DataFrame | None = None,
    comparison: Comparison | None = None,
    commands: Sequence[str] = (),
    summary: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> Path:
    """Report on one tomogram: figures, table, pictures, parameters and what to do next.

    Parameters
    ----------
    path
        HTML file to write.
    dataset
        Result of the search, or its path; maps are read region by region.
    picks
        Particle table from `pick`.
    tomogram
        The searched volume, or its path, for a picture.
    truth
        Particle table of the truth, if known; compared where `comparison` is not given.
    comparison
        From `compare`.
    commands
        Command lines to try next.
    summary
        Main figures in place of those of the comparison; figures not given are added from it.
    title
        Heading; by default it names the tomogram.
    """
    result = open_maps(dataset)
    if comparison is None and truth is not None:
        diameter = picks.attrs.get("particle_diameter") or result.attrs["particle_diameter"]
        comparison = compare(picks, truth, radius=diameter / 2, voxel_size=float(result.attrs["voxel_size"]))
    figures: dict[str, Any] = dict(comparison.summary()) if comparison else {"picks": len(picks)}
    name = str(result.attrs.get("tomo_name", "tomogram"))
    return write_report(
        path,
        title=title or f"Particles in {name}",
        lead=_lead(result),
        summary={**(summary or {}), **{k: v for k, v in figures.items() if k not in (summary or {})}},
        done=_done(result, picks),
        tables=_tables(picks, comparison),
        figures=_pictures(result, picks, tomogram, truth, comparison),
        parameters=_parameters(result),
        commands=commands,
    )


def _lead(result: xr.Dataset) -> str:
    """Return one line on the size of the search."""
    shape = " x ".join(str(result.sizes[axis]) for axis in "xyz")
    symmetry = result.attrs.get("symmetry", "C1")
    return f"{shape} voxels of {float(result.attrs['voxel_size']):.4g} Å, template symmetry {symmetry}"


def _done(result: xr.Dataset, picks: pd.DataFrame) -> list[str]:
    """Return the sentences of what was done."""
    templates = ", ".join(map(str, result.attrs.get("template_names", []))) or "the template"
    lines = []
    if {"n_rotations", "n_voxels"} <= set(result.variables):
        rotations, voxels = int(result["n_rotations"].sum()), int(result["n_voxels"].max())
        lines.append(f"{templates} was scored in {rotations:,} rotations at {voxels:,} voxels.")
    lines.append(
        "The score is the correlation under the mask with local mean and variance; the best rotation is kept."
    )
    if "noise" in result:
        lines.append("Noise correction: templates of random phases took the same path and were set off.")
    rule, thresholds = picks.attrs.get("rule"), picks.attrs.get("thresholds", [])
    if rule:
        values = ", ".join(f"{value:.4g}" for value in thresholds)
        lines.append(
            f"Threshold: {rule.replace('_', ' ')}, that is {picks.attrs['threshold_map']} >= {values}."
        )
    diameter = picks.attrs.get("particle_diameter")
    kept = f", one to a particle diameter of {diameter:.4g} Å" if diameter else ""
    lines.append(f"{len(picks)} peaks were kept{kept}.")
    return lines


def _tables(picks: pd.DataFrame, comparison: Comparison | None) -> dict[str, pd.DataFrame]:
    """Return the figures at some thresholds and the best particles."""
    tables = {}
    if comparison is not None and len(comparison.table):
        every = max(1, -(-len(comparison.table) // TABLE_ROWS))
        chosen = comparison.table.iloc[::-1].iloc[::every].iloc[::-1]
        names = {"f1": "F1", "position_error": "position error (Å)", "angular_error": "angular error (°)"}
        tables["Against the truth, by threshold"] = chosen.rename(columns=names)
    columns = ["x_a", "y_a", "z_a", "score", "score_raw", "zscore", "phi", "theta", "psi"]
    known = [name for name in columns if name in picks and picks[name].notna().any()]
    words = {"score_raw": "raw score", "x_a": "x (Å)", "y_a": "y (Å)", "z_a": "z (Å)"}
    best = picks[known].head(TABLE_ROWS).rename(columns=words)
    best.insert(0, "rank", range(1, len(best) + 1))
    tables["Best particles" if len(picks) > TABLE_ROWS else "Particles"] = best
    return tables


def _pictures(
    result: xr.Dataset,
    picks: pd.DataFrame,
    tomogram: str | Path | xr.DataArray | None,
    truth: pd.DataFrame | None,
    comparison: Comparison | None,
) -> list[Picture]:
    """Return the pictures of one tomogram."""
    voxel = float(result.attrs["voxel_size"])
    diameter = picks.attrs.get("particle_diameter") or result.attrs.get("particle_diameter") or 10 * voxel
    radius = diameter / voxel / 2
    found = []
    if tomogram is not None:
        volume = tomogram if isinstance(tomogram, xr.DataArray) else open_volume(tomogram)
        rings = particle_rings(picks, truth, comparison)
        figure = orthogonal_views(volume, voxel_size=voxel, radius=radius, rings=rings)
        caption = "A slab through the most particles, from above and from the side; circles cut particles."
        found.append(Picture("The tomogram", caption, figure))
    score = result["score"].isel(template=0)
    figure = orthogonal_views(
        score, view="maximum", voxel_size=voxel, radius=radius, colours="magma", label="score"
    )
    found.append(
        Picture("The score map", "Highest score along z and along y: bright points are fits.", figure)
    )
    gate = picks.attrs.get("threshold_map", "score_raw" if "score_raw" in result else "score")
    figure = score_histogram(
        result, name=gate, threshold=(picks.attrs.get("thresholds") or [None])[0], picked=picks.get(gate)
    )
    caption = "All voxels, the curve that independent noise would give, the threshold and the picks."
    found.append(Picture("Scores against noise", caption, figure))
    caption = "Where each particle's z axis points, on an equal-area map; the poles are the beam direction."
    found.append(Picture("Orientations", caption, orientation_map(picks)))
    if comparison is not None and len(comparison.table):
        caption = "What lowering the threshold gains in true particles and costs in false ones."
        found.append(Picture("Recall and precision", caption, roc_figure(comparison)))
    return found


def _parameters(result: xr.Dataset) -> dict[str, Any]:
    """Return the settings of the search that are not empty, nested ones by dotted name."""
    stored = result.attrs.get("parameters", "{}")
    values = json.loads(stored) if isinstance(stored, str) else dict(stored)
    flat = pd.json_normalize(values).iloc[0].to_dict() if values else {}
    return {str(key): value for key, value in flat.items() if value is not None}
