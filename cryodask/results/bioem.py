"""Results of likelihoods as BioEM's output files."""

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.io.files import written_whole

RULE = "*" * 25 + " HEADER:: NOTATION " + "*" * 43
MICRONS = 1e4


def bioem_files(dataset: xr.Dataset) -> dict[str, str]:
    """Return the text of BioEM's `Output_Probabilities` of each structure, and of `ANG_PROB` where it was
    asked for, by name.

    LogProb is the log-likelihood plus the log prior of the structure; its constant differs from BioEM's, so
    only differences between structures compare. Orientations are quaternions in BioEM's sense.

    Raises
    ------
    InputError
        A result without best poses, or not of listed orientations.
    """
    for name in ("log_likelihood", "best_template", "view_psi"):
        if name not in dataset:
            raise InputError("BioEM's files need listed orientations and keep: best, likelihood")
    found: dict[str, str] = {}
    prior = np.asarray(dataset["prior"].values, float)
    log_prior = np.log(prior / prior.sum())
    for number, name in enumerate(dataset.structure.values):
        part = dataset.isel(structure=number).compute()
        found[f"{name}_Output_Probabilities"] = _probabilities(part, float(log_prior[number]))
        if "top_template" in part:
            found[f"{name}_ANG_PROB"] = _orientations(part, float(log_prior[number]))
    return found


def write_bioem(dataset: xr.Dataset, stem: str | Path) -> list[Path]:
    """Write BioEM's files, named STEM_STRUCTURE_Output_Probabilities and STEM_STRUCTURE_ANG_PROB."""
    stem = Path(stem)
    written = []
    for name, text in bioem_files(dataset).items():
        path = stem.with_name(f"{stem.name}_{name}")
        with written_whole(path, overwrite=True) as temporary:
            temporary.write_text(text)
        written.append(path)
    return written


def _quaternions(part: xr.Dataset) -> np.ndarray:
    """Return (x, y, z, w) of the views: the rows of the matrix are the image's axes."""
    angles = np.stack([part.azimuth, part.polar, part.view_psi], axis=1)
    kept = np.isfinite(angles).all(axis=1)
    found = np.full((len(angles), 4), np.nan)
    found[kept] = Rotation.from_euler("ZYZ", angles[kept], degrees=True).as_quat()
    return found * np.where(found[:, 3:] < 0, -1, 1)


def _probabilities(part: xr.Dataset, log_prior: float) -> str:
    lines = [
        RULE,
        "Notation= RefMap:  MapNumber ; LogProb natural logarithm of posterior Probability ",
        "Notation= RefMap:  MapNumber ; Maximizing Param: MaxLogProb - q1 - q2 - q3 - q4 - CTF amp - "
        "CTF defocus - CTF B-Env - center x - center y - normalization - offset",
        RULE,
        "",
    ]
    pixel_size = float(part.attrs["pixel_size"])
    quaternions = _quaternions(part)
    for i in range(part.sizes["image"]):
        row = part.isel(image=i)
        values = [
            (row.log_likelihood_best + log_prior, ""),
            *((v, "[]") for v in quaternions[int(row.best_template)]),
            (row.best_amplitude, "[]"),
            (row.best_defocus / MICRONS, "[micro-m]"),
            (row.best_b_envelope, "[A^2]"),
            (row.displacement_x / pixel_size, "[pix]"),
            (row.displacement_y / pixel_size, "[pix]"),
            (row.scale, "[]"),
            (row.offset, "[]"),
        ]
        told = " ".join(f"{float(value):.9g} {unit}".strip() for value, unit in values)
        lines.append(f"RefMap: {i} LogProb:  {float(row.log_likelihood) + log_prior:.9g}")
        lines.append(f"RefMap: {i} Maximizing Param: {told}")
    return "\n".join(lines) + "\n"


def _orientations(part: xr.Dataset, log_prior: float) -> str:
    lines = [RULE, " RefMap:  MapNumber ; q1 - q2 - q3 - q4 - logP", RULE]
    quaternions = _quaternions(part)
    for i in range(part.sizes["image"]):
        total = float(part.log_likelihood[i]) + log_prior
        for rank in range(part.sizes["rank"]):
            view = int(part.top_template[rank, i])
            if view >= 0:
                words = " ".join(f"{v:.9g}" for v in quaternions[view])
                lines.append(f" {i} {words} {total + float(part.top_log_posterior[rank, i]):.9g}")
    return "\n".join(lines) + "\n"
