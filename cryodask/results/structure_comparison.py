"""What the likelihoods of images say of structures: posterior, evidence, the table and the figure."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import log_softmax, softmax


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


def draw_comparison(dataset: xr.Dataset, path: str | Path) -> None:
    """Draw the comparison of the two structures of most evidence: difference of each image, cumulative,
    posterior."""
    from matplotlib.figure import Figure

    values = dataset.log_likelihood.transpose("structure", "image").values
    names = [str(name) for name in dataset.structure.values]
    order = np.argsort(-values.sum(axis=1), kind="stable")[:2]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    each, running, shares = figure.subplots(1, 3)
    if len(order) == 2:
        difference = values[order[0]] - values[order[1]]
        title = f"{names[order[0]]} over {names[order[1]]}"
        each.hist(difference, bins=min(60, max(10, len(difference) // 5)), color="#33658a")
        each.axvline(0, color="black", linewidth=0.8)
        each.set(xlabel="log-likelihood difference of an image (nats)", ylabel="images", title=title)
        running.plot(np.arange(1, len(difference) + 1), np.cumsum(difference), color="#33658a")
        running.axhline(0, color="black", linewidth=0.8)
        running.set(xlabel="images", ylabel="cumulative difference (nats)")
    else:
        each.hist(values[0], bins=30, color="#33658a")
        each.set(xlabel="log-likelihood (nats)", ylabel="images", title=names[0])
        running.set_axis_off()
    prior = np.asarray(dataset["prior"].values, float)
    mean = softmax(values + np.log(prior)[:, None], axis=0).mean(axis=1)
    shares.barh(names[::-1], mean[::-1], color="#f26419")
    shares.set(xlim=(0, 1), xlabel="mean posterior of an image")
    figure.savefig(path, dpi=120)
