"""False discovery rates from decoys: peaks that the same rules find in noise, or of the mirrored template."""

import json

import numpy as np
import pandas as pd
import xarray as xr

from cryodask.errors import InputError
from cryodask.picking.thresholds import Threshold, map_moments, source_name

# Decoys are held against all peaks this many standard deviations above the mean of their map: lower ones
# only decide rates near one half.
FLOOR_SIGMA = 2.0


def q_values(targets: np.ndarray, decoys: np.ndarray) -> np.ndarray:
    """Return the least false discovery rate at which each target is kept.

    q(s) = min over s' <= s of (1 + #decoys >= s')/max(1, #targets >= s'), at most 1 (target-decoy
    competition, Elias and Gygi 2007; the q-value of Storey 2003).

    Parameters
    ----------
    targets, decoys
        (n,) and (m,) scores.

    Returns
    -------
    numpy.ndarray
        (n,) float64.
    """
    order = np.argsort(-targets, kind="stable")
    falling = targets[order]
    n_targets = np.searchsorted(-falling, -falling, side="right")
    n_decoys = len(decoys) - np.searchsorted(np.sort(decoys), falling, side="left")
    rates = (1 + n_decoys) / np.maximum(n_targets, 1)
    found = np.empty(len(targets))
    # Between two targets only decoys are added, so the least rate is at a target.
    found[order] = np.minimum.accumulate(rates[::-1])[::-1]
    return np.minimum(found, 1.0)


def decoy_name(dataset: xr.Dataset) -> str:
    """Return the map of decoy scores: of the mirrored template, else the noise map.

    Raises
    ------
    InputError
        Neither is there, or a noise map that is the mean of several copies and so lower than the noise of the
        scores.
    """
    if "decoy" in dataset and "score_raw" in dataset:
        return "decoy"
    if "noise" not in dataset or "score_raw" not in dataset:
        raise InputError(
            f"{source_name(dataset)}: --fdr needs a map of decoys; match with decoy: mirror, or with "
            "noise_correction ratio or subtract for the noise map"
        )
    copies = int(json.loads(dataset.attrs.get("parameters", "{}")).get("noise_copies", 1))
    if copies > 1:
        raise InputError(
            f"{source_name(dataset)}: --fdr needs the noise of one copy, the result has the mean of "
            f"{copies}; match with noise_copies: 1, or with decoy: mirror"
        )
    return "noise"


def decoy_maps(dataset: xr.Dataset) -> xr.Dataset:
    """Return a result whose scores are its decoys' and whose decoys are its raw scores.

    Of several templates the class of a voxel is the one whose decoy stands out most, in its own sigma.

    Raises
    ------
    InputError
        As `decoy_name`.
    """
    name = decoy_name(dataset)
    swapped = dataset.assign({"score": dataset[name], "score_raw": dataset[name], name: dataset["score_raw"]})
    unused = ("zscore", "class_id", "margin", *(() if name == "noise" else ("noise",)))
    swapped = swapped.drop_vars([each for each in unused if each in swapped])
    if dataset.sizes["template"] > 1:
        scales = xr.DataArray(1.0 / decoy_scales(dataset), dims="template")
        swapped["class_id"] = (dataset[name] * scales).argmax("template")
    return swapped


def decoy_scales(dataset: xr.Dataset) -> np.ndarray:
    """Return (template,) what raw scores are divided by, so that those of different templates compare."""
    if "sigma" in dataset:
        return np.asarray(dataset["sigma"].values, float)
    name = decoy_name(dataset)
    return np.array([map_moments(dataset, name, t).std for t in range(dataset.sizes["template"])])


def floor_threshold(dataset: xr.Dataset) -> Threshold:
    """Return the raw score from which on peaks and decoys are counted, for each template."""
    name = decoy_name(dataset)
    moments = [map_moments(dataset, name, t) for t in range(dataset.sizes["template"])]
    return Threshold("score_raw", tuple(m.mean + FLOOR_SIGMA * m.std for m in moments), "floor")


def class_q_values(peaks: pd.DataFrame, decoys: pd.DataFrame) -> np.ndarray:
    """Return the q-values of peaks, each class held against its own decoys: their raw scores differ in scale.

    Parameters
    ----------
    peaks, decoys
        `template` and `score_raw`.
    """
    found = np.ones(len(peaks))
    for template in np.unique(peaks["template"]):
        own = (peaks["template"] == template).to_numpy()
        against = decoys.loc[decoys["template"] == template, "score_raw"].to_numpy(float)
        found[own] = q_values(peaks.loc[own, "score_raw"].to_numpy(float), against)
    return found


def discovery_threshold(peaks: pd.DataFrame, q: np.ndarray, rate: float, count: int) -> Threshold:
    """Return the least raw score of each of `count` templates whose q-value is within a rate.

    Where there is none it lies above every score of the template.
    """
    values = []
    for template in range(count):
        own = (peaks["template"] == template).to_numpy()
        scores = peaks["score_raw"].to_numpy(float)
        kept = scores[own & (q <= rate)]
        values.append(float(kept.min() if len(kept) else np.nextafter(scores[own].max(initial=0.0), np.inf)))
    return Threshold("score_raw", tuple(values), f"fdr = {rate:g}")
