"""What the likelihoods of images say of structures: posterior, evidence, the table and the figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import log_softmax, softmax

from cryodask.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE = "#33658a", "#f26419"


def posterior_variables(log_likelihood: xr.DataArray, prior: Any) -> xr.Dataset:
    """Return the posterior of structures given each image and all images together.

    Parameters
    ----------
    log_likelihood : (structure, image)
    prior : (structure,) > 0
        Relative weights.

    Returns
    -------
    xarray.Dataset
        `posterior` (image, structure), `log_evidence` (structure), `posterior_all` (structure).
    """
    log_prior = np.log(np.asarray(prior, float) / np.sum(np.asarray(prior, float)))
    values = log_likelihood.transpose("image", "structure").values
    evidence = values.sum(axis=0)
    return xr.Dataset(
        {
            "posterior": (("image", "structure"), softmax(values + log_prior, axis=1)),
            "log_evidence": ("structure", evidence, {"units": "nats"}),
            "posterior_all": ("structure", softmax(evidence + log_prior)),
        },
        coords={"structure": log_likelihood.structure},
    )


def comparison_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return one row an image: name, log-likelihood of each structure, best, lead, cumulative difference,
    posterior.

    The lead is over the second best; the cumulative difference is that of the first two structures.
    """
    names = [str(name) for name in dataset.structure.values]
    values = dataset.log_likelihood.transpose("image", "structure").values
    table = pd.DataFrame({"image": dataset.image.values, "name": dataset["name"].values})
    for i, name in enumerate(names):
        table[f"log_likelihood_{name}"] = values[:, i]
    table["best"] = np.array(names, dtype=object)[values.argmax(axis=1)]
    if len(names) > 1:
        ordered = np.sort(values, axis=1)
        table["lead"] = ordered[:, -1] - ordered[:, -2]
        table["cumulative_difference"] = np.cumsum(values[:, 0] - values[:, 1])
    prior = dataset["prior"].values
    shares = np.exp(log_softmax(values + np.log(prior / prior.sum()), axis=1))
    for i, name in enumerate(names):
        table[f"posterior_{name}"] = shares[:, i]
    return table


def posterior_of(dataset: xr.Dataset, prior: Any = None) -> xr.Dataset:
    """Return `posterior_variables` of a result.

    Parameters
    ----------
    dataset
        With log_likelihood.
    prior
        A sequence, a mapping of names, or None for the result's own.

    Raises
    ------
    InputError
        A result without likelihoods; a wrong prior.
    """
    if "log_likelihood" not in dataset:
        raise InputError("posterior: the result has no log_likelihood; add likelihood to keep")
    names = [str(name) for name in dataset.structure.values]
    if prior is None:
        prior = dataset["prior"].values
    elif isinstance(prior, Mapping):
        unknown = sorted(set(prior) - set(names))
        if unknown:
            raise InputError(f"prior: no structure {unknown[0]}, expected {', '.join(names)}")
        prior = [prior.get(name, 1.0) for name in names]
    weights = np.asarray(prior, float)
    if weights.shape != (len(names),) or not (weights > 0).all():
        raise InputError(f"prior = {prior}: expected {len(names)} numbers > 0")
    return posterior_variables(dataset.log_likelihood.compute(), weights)


def comparison_figure(dataset: xr.Dataset) -> "Figure":
    """Draw the structures of most evidence: difference of each image, cumulative, posterior.

    The left has one bar an image, for the best two structures; the middle is the sum in order of the images;
    the right is the posterior given each image, averaged, with that given all images in words.

    Raises
    ------
    InputError
        A result without likelihoods.
    """
    from matplotlib.figure import Figure

    shares = posterior_of(dataset)
    values = dataset.log_likelihood.transpose("structure", "image").values
    names = [str(name) for name in dataset.structure.values]
    order = np.argsort(-values.sum(axis=1), kind="stable")
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    if len(order) > 1:
        difference = values[order[0]] - values[order[1]]
        title = f"{names[order[0]]} over {names[order[1]]}"
        left.bar(np.arange(len(difference)), np.sort(difference)[::-1], width=0.9, color=BLUE)
        left.axhline(0, color="black", linewidth=0.8)
        won = int((difference > 0).sum())
        left.set(xlabel="images, sorted by it", ylabel="log-likelihood difference (nats)")
        left.set_title(f"{title}: {won} of {len(difference)} images", fontsize=10)
        for other in order[1:6]:
            running = np.cumsum(values[order[0]] - values[other])
            middle.plot(np.arange(1, len(running) + 1), running, label=f"over {names[other]}")
        middle.axhline(0, color="black", linewidth=0.8)
        middle.set(xlabel="images, in order of the file", ylabel="cumulative difference (nats)")
        middle.set_title(f"{names[order[0]]}: sum {difference.sum():.4g} nats", fontsize=10)
        middle.legend(fontsize=8, frameon=False)
    else:
        left.hist(values[0], bins=30, color=BLUE)
        left.set(xlabel="log-likelihood (nats)", ylabel="images", title=names[0])
        middle.set_axis_off()
    shown = order[:12]
    mean = shares["posterior"].mean("image").values[shown]
    right.barh(np.arange(len(shown)), mean, color=ORANGE)
    right.set_yticks(np.arange(len(shown)), [names[i] for i in shown])
    right.invert_yaxis()
    right.set(xlim=(0, 1), xlabel="posterior of an image, mean")
    best = shares["posterior_all"].values[order[0]]
    right.set_title(f"given all images: {names[order[0]]} {best:.3g}", fontsize=10)
    return figure


def draw_comparison(dataset: xr.Dataset, path: str | Path) -> None:
    """Write `comparison_figure` as PNG."""
    comparison_figure(dataset).savefig(path, dpi=120, format="png")
