"""What weights the frequencies of a match: the optics that its parameters ask for, cell by cell."""

from typing import TYPE_CHECKING, Any

import numpy as np

from cryodask.jobs.tomogram_matching.inputs import MatchInputs
from cryodask.jobs.tomogram_matching.preparation import NO_BAND, radial_weights
from cryodask.optics.defocus_gradient import DefocusCells, defocus_cells, tilts_at
from cryodask.optics.dose import DoseFilter
from cryodask.optics.template_filter import template_filter

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.parameters import MatchParameters


def dose_filter(parameters: "MatchParameters") -> DoseFilter | None:
    """Return the exposure filter that the parameters ask for; GAPSTOP's takes no account of the voltage."""
    if parameters.dose == "none":
        return None
    standard = DoseFilter()
    return DoseFilter(
        parameters.dose,
        parameters.critical_dose or standard.critical_dose,
        scale_with_voltage=parameters.source.dialect != "star",
    )


def defocus_hand(inputs: MatchInputs) -> int:
    """Return the sign of the defocus gradient, 0 for none."""
    hand = inputs.parameters.defocus_hand
    if hand == "file":
        return inputs.tilts.defocus_hand or 0 if inputs.tilts is not None else 0
    return hand


def make_cells(inputs: MatchInputs) -> DefocusCells:
    """Return the cells of constant defocus; tomogram and optics alone decide them."""
    if inputs.tilts is None or not defocus_hand(inputs):
        return DefocusCells(inputs.shape)
    box = inputs.particle.box
    edge = min((inputs.band or NO_BAND).edge, box / 2)
    return defocus_cells(inputs.shape, inputs.voxel_size, inputs.tilts, edge / (box * inputs.voxel_size))


def make_template_filters(inputs: MatchInputs, cells: DefocusCells) -> np.ndarray | None:
    """Return the template filter of every cell, but for the whitening, which the tomogram has yet to give.

    Returns
    -------
    (cell, n, n, n//2 + 1) float32, or None where nothing is filtered.
    """
    parameters, tilts = inputs.parameters, inputs.tilts
    weighted = any(value != "none" for value in (parameters.ctf, parameters.dose, parameters.tilt_weight))
    if parameters.wedge == "none" and not weighted:
        tilts = None
    if tilts is None and inputs.band is None and not parameters.laplacian and not parameters.whiten:
        return None
    series = [tilts]
    hand = defocus_hand(inputs)
    if tilts is not None and hand:
        places = inputs.voxel_size * np.array([cells.centre(cell) for cell in range(len(cells))])
        series = [tilts_at(tilts, hand, z, x) for z, x in places]
    return np.stack(
        [
            template_filter(
                inputs.particle.box,
                inputs.voxel_size,
                each,
                inputs.band or NO_BAND,
                wedge=parameters.wedge,
                ctf=None if parameters.ctf == "none" else parameters.ctf,
                dose=dose_filter(parameters),
                tilt_weight=parameters.tilt_weight,
                filter_average="product" if parameters.filter_average == "product" else "tilts",
                radial_weights=radial_weights(parameters.laplacian),
            )
            for each in series
        ]
    )


def describe(inputs: MatchInputs, cells: DefocusCells) -> dict[str, Any]:
    """Return what weighted the frequencies, resolved, for the record of a result."""
    parameters, band, dose = inputs.parameters, inputs.band, dose_filter(inputs.parameters)
    found: dict[str, Any] = {
        name: getattr(parameters, name)
        for name in ("wedge", "ctf", "dose", "tilt_weight", "filter_average", "laplacian", "whiten")
    }
    if inputs.tilts is None:
        found["wedge"] = "none"
    if band is not None:
        radii = {"lp_rad": band.lp_rad, "lp_sigma": band.lp_sigma, "hp_rad": band.hp_rad}
        found["band"] = {name: value for name, value in radii.items() if np.isfinite(value)}
        found["band"] |= {"hp_sigma": band.hp_sigma, "interpolation": band.interpolation}
    if dose is not None and dose.model == "grant":
        found["critical_dose"] = dose.critical_dose
        found["scale_with_voltage"] = dose.scale_with_voltage
    hand = defocus_hand(inputs)
    return found | {"defocus_hand": hand, "defocus_cells": cells.counts}
