"""The page of a classification: its classes, its scores, and where every particle went."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.results.montage import montage
from cryodask.results.page import bullets, data_table, figure_block, html_page, section, tiles, value_table
from cryodask.results.pictures import FALSE, FOUND, INK, SOFT, Picture, new_figure, style

BINS = 60
SCORES = {
    "score": "score without the image itself, sigma of the noise",
    "pixel_error": "pixel error over restarts, working pixels",
    "agreement": "agreement of runs about the picture in the image",
    "margin": "margin to classes that are not alike, sigma",
}


def write_class_report(path: Path, dataset: xr.Dataset, table: pd.DataFrame, summary: dict[str, Any]) -> None:
    """Write the report.

    Parameters
    ----------
    path
        The HTML file.
    dataset
        Result of a classification.
    table
        Its class table.
    summary
        Counts and thresholds.
    """
    count, images = summary["classes"], summary["images"]
    lead = f"{summary['accounted']} of {images} particles in {count} validated classes"
    parts = [
        tiles(
            {
                "classes": count,
                "accounted": summary["accounted"],
                "unaccounted": images - summary["accounted"],
                "generations": summary["generations"],
            }
        ),
        section("Classes", _montage(dataset, table) if count else bullets(["No class was accepted."])),
        section("Class table", data_table(_shown(table)) if count else ""),
        section("Where every particle went", _fates(summary)),
        section("Scores", figure_block(_histograms(dataset, summary))),
        section("Settings", value_table(_settings(dataset))),
    ]
    if not summary["agreement_tested"]:
        parts.insert(1, bullets(["One run: agreement between independent runs was not tested."]))
    path.write_text(html_page("Classification", lead, parts), encoding="utf-8")


def _montage(dataset: xr.Dataset, table: pd.DataFrame) -> str:
    by_order = np.argsort(table["order"].to_numpy())
    name = "class_average" if "class_average" in dataset else "working_average"
    labels = []
    for row in table.iloc[by_order].to_dict("records"):
        resolution = f" · {row['resolution']:.1f} Å" if np.isfinite(row["resolution"]) else ""
        agreement = f" · {row['agreement']:.2f}" if np.isfinite(row["agreement"]) else ""
        first = f"{row['class']}: {row['size']}{resolution}"
        labels.append(f"{first}\n{row['pixel_error']:.2f} px{agreement}")
    figure = montage(dataset[name].values[by_order], labels, columns=min(8, max(3, len(by_order))))
    caption = (
        "In order of similarity. Below each: its number, particles and resolution (FRC 0.5); its pixel error "
        "over restarts and the mean agreement of independent runs."
    )
    return figure_block(Picture("Class averages", caption, figure))


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    names = (
        "class size resolution agreement pixel_error jaccard mean_score mirror_stable price order generation"
    )
    return table[names.split()]


def _fates(summary: dict[str, Any]) -> str:
    words = {
        "accounted": "in a validated class",
        "junk": "noise: no better explained than decoys of pure noise",
        "unstable": "their alignment does not come back from random starts",
        "unreproducible": "independent runs disagree about them",
        "margin": "another class explains them better",
        "small_class": "their class kept too few members",
        "leftover": "never tested",
    }
    rows = [
        {"fate": key, "particles": summary["reasons"][key], "meaning": text} for key, text in words.items()
    ]
    limits = [
        f"Generation {i}: particles below a score of {value:.2f} are noise."
        for i, value in enumerate(summary["junk_thresholds"], start=1)
        if value is not None
    ]
    cost = f"It took {summary['seconds']:.0f} s, seed {summary['seed']}."
    return data_table(pd.DataFrame(rows)) + bullets([*limits, cost])


def _histograms(dataset: xr.Dataset, summary: dict[str, Any]) -> Picture:
    figure = new_figure(9.0, 5.4)
    accounted = dataset["class_id"].values >= 0
    limits = _limits(dataset, summary)
    for axes, (name, words) in zip(figure.subplots(2, 2).ravel(), SCORES.items(), strict=True):
        style(axes, xlabel=words, ylabel="particles")
        values = dataset[name].values
        finite = np.isfinite(values)
        if not finite.any():
            axes.text(0.5, 0.5, "not tested", transform=axes.transAxes, ha="center", color=SOFT)
            continue
        low, high = np.percentile(values[finite], [0, 99.5])
        edges = np.linspace(low, max(high, low + 1e-3), BINS)
        shown = [np.clip(values[finite & rows], low, edges[-1]) for rows in (accounted, ~accounted)]
        axes.hist(shown, edges, stacked=True, color=[FOUND, SOFT], label=["accounted", "not accounted"])
        if (limit := limits.get(name)) is not None:
            axes.axvline(limit, color=FALSE, lw=1.4, ls="--", label=f"threshold {limit:.3g}")
        # room above the bars, in a fixed place: "best" is slow, and says so, where there are many
        axes.set_ylim(top=1.45 * axes.get_ylim()[1])
        axes.legend(loc="upper center", ncols=2, frameon=False, fontsize=7, labelcolor=INK)
    return Picture("Scores of all particles", "What decides, with its thresholds.", figure)


def _limits(dataset: xr.Dataset, summary: dict[str, Any]) -> dict[str, float | None]:
    settings = _settings(dataset)
    margin = settings["margin"]
    return {
        "score": summary["junk_thresholds"][0] if summary["junk_thresholds"] else None,
        "pixel_error": settings["thld_err"],
        "agreement": settings["agreement"],
        "margin": None if margin == "none" else margin,
    }


def _settings(dataset: xr.Dataset) -> dict[str, Any]:
    import json

    return json.loads(dataset.attrs["parameters"])
