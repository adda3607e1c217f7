"""What all templates together say of an image: best pose, integrated likelihood, posterior over poses."""

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from cryodask.geometry.polar import relion_pose, relion_pose_of_cryolike
from cryodask.jobs.likelihood.levels import FINE, finish_fine
from cryodask.search.aggregates import States
from cryodask.search.pair_aggregates import ordered_rows
from cryodask.search.problem import Summary, Variable
from cryodask.search.tiles import Tile

if TYPE_CHECKING:
    from cryodask.jobs.likelihood.problem import LikelihoodProblem

BINS = 1 << 16  # of ln P of a pose, in counting the credible set
BEST = {
    "cross_correlation": ("f4", ""),
    "best_template": ("i4", "row of the structure's views"),
    "best_displacement": ("i4", "row of the displacements"),
    "displacement_x": ("f4", "angstrom, template frame"),
    "displacement_y": ("f4", "angstrom, template frame"),
    "inplane_rotation": ("f4", "degrees"),
    "rot": ("f4", "degrees, RELION"),
    "tilt": ("f4", "degrees, RELION"),
    "psi": ("f4", "degrees, RELION"),
    "origin_x": ("f4", "angstrom, RELION"),
    "origin_y": ("f4", "angstrom, RELION"),
    "log_likelihood_best": ("f8", "nats"),
    "scale": ("f4", ""),
    "correlation": ("f4", "with the offset removed"),
}
SUMMARY = {
    "entropy": ("f8", "nats"),
    "pmax": ("f8", ""),
    "n_effective": ("f8", "poses"),
    "n_credible": ("i4", "poses"),
    "credible_spread": ("f4", "degrees"),
}
TEMPLATE = {
    "log_likelihood_template": ("f4", "nats, without weights"),
    "cross_correlation_template": ("f4", ""),
    "displacement_x_template": ("f4", "angstrom, template frame"),
    "displacement_y_template": ("f4", "angstrom, template frame"),
    "inplane_rotation_template": ("f4", "degrees"),
}


CONTRAST = {
    "offset": ("f4", "standard deviations of the image"),
    "best_defocus": ("f4", "angstrom"),
    "best_b_envelope": ("f4", "angstrom^2"),
    "best_amplitude": ("f4", ""),
}


def variables(
    structures: int, templates: int, keep: tuple[str, ...], *, has_contrast: bool = False
) -> tuple[Variable, ...]:
    """Return the arrays of a result with these levels."""
    lead = (("structure", structures),)
    wanted: list[tuple[dict[str, tuple[str, str]], tuple[tuple[str, int], ...]]] = []
    if "best" in keep:
        wanted.append((BEST | CONTRAST if has_contrast else BEST, lead))
    if "likelihood" in keep:
        wanted.append(({"log_likelihood": ("f8", "nats, integrated over poses")}, lead))
    if "summary" in keep:
        wanted.append((SUMMARY, lead))
    if "template" in keep:
        wanted.append((TEMPLATE, (*lead, ("template", templates))))
    return tuple(
        Variable(name, dtype, -1 if dtype == "i4" else np.nan, leading, (("units", unit),) if unit else ())
        for table, leading in wanted
        for name, (dtype, unit) in table.items()
    )


def finish_tile(
    problem: "LikelihoodProblem", tile: Tile, states: States
) -> tuple[dict[str, np.ndarray], Summary]:
    """Return every variable on a tile's images, and sums for notices."""
    (count,) = tile.shape
    arrays = {
        v.name: np.full((*(n for _, n in v.leading), count), v.fill, v.dtype) for v in problem.variables
    }
    summary = {"images": float(count), "inverted": 0.0}
    sums = ordered_rows(states, "sums") if problem.needs_sums else None
    folds = ordered_rows(states, "template") if "template" in problem.keep else None
    fine = {level: ordered_rows(states, level) for level in FINE if level in problem.keep}
    for number in range(len(problem.structures)):
        rows = slice(*problem.offsets[number : number + 2])
        if "best" in problem.keep:
            ids = states["best"]["id"][number]
            found = best_poses(problem, tile, number, ids)
            summary["inverted"] += float((found["correlation"] < 0).sum())
            for name, values in found.items():
                if name in arrays:
                    arrays[name][number] = values
        if sums is not None:
            integrated = integrate(problem, tile, number, sums[rows])
            for name, values in integrated.items():
                if name in arrays:
                    arrays[name][number] = values
            own = {level: each[rows] for level, each in fine.items()}
            for name, values in finish_fine(problem, number, own, integrated["log_likelihood"]).items():
                arrays[name][number, : len(values)] = values
        if folds is not None and sums is not None:
            for name, values in template_level(problem, folds[rows], sums[rows]).items():
                arrays[name][number, : values.shape[0]] = values
    return arrays, summary


def best_poses(
    problem: "LikelihoodProblem", tile: Tile, structure: int, ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the best pose of each image in every convention, and what is measured there."""
    d_count = len(problem.displacements)
    pose, w = np.divmod(ids.astype(np.int64), problem.rotations)
    view, d = np.divmod(pose, d_count)
    measured: dict[str, np.ndarray] = {}
    place = 0
    for block in problem.blocks(tile):
        for image in range(len(block)):
            template = problem.template(structure, view[place])
            for name, value in problem.measure(block, image, template, d[place], w[place]).items():
                measured.setdefault(name, np.zeros(len(ids)))[place] = value
            place += 1
    rotation = problem.rotation_angles[w % len(problem.rotation_angles)]
    moved = problem.displacements[d]
    rot, tilt, psi, x, y = problem_pose(problem, structure, view, rotation, moved, tile)
    return measured | {
        "best_template": view,
        "best_displacement": d,
        "displacement_x": moved[:, 0],
        "displacement_y": moved[:, 1],
        "inplane_rotation": rotation,
        "rot": rot,
        "tilt": tilt,
        "psi": psi,
        "origin_x": x,
        "origin_y": y,
    }


def problem_pose(
    problem: "LikelihoodProblem",
    structure: int,
    view: np.ndarray,
    rotation: np.ndarray,
    moved: np.ndarray,
    tile: Tile,
) -> np.ndarray:
    """Return RELION's rot, tilt, psi and origins (5, m), the file's origin added where images were
    centred."""
    views = problem.views[structure]
    if views.psi is not None:
        # displacements lie in the frame of the view, which the list has turned in the plane
        turn = np.radians(views.psi[view])
        x, y = moved.T
        moved = np.stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y], axis=1)
        rotation = rotation + views.psi[view]
    arguments = views.azimuth[view], views.polar[view], rotation, moved
    if problem.maker.axes != "relion":
        is_map = problem.maker.axes == "cryolike" and problem.structures[structure].model.is_map
        pose = relion_pose_of_cryolike(*arguments, is_map=is_map).T
    else:
        pose = relion_pose(*arguments).T
    if problem.preparation.is_centred:
        pose[3:] += problem.preparation.origins(tile.start[0], tile.stop[0])
    return pose


def integrate(
    problem: "LikelihoodProblem", tile: Tile, structure: int, sums: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the integrated likelihood and the summary of the posterior over poses.

    Parameters
    ----------
    sums : (S, m, 5)
        Of each template: log sum with the prior of displacements, without it, mean of ln P, ln of the sum of
        squares, largest.
    """
    views = problem.views[structure]
    log_sum, plain, mean, square, largest = np.moveaxis(sums, -1, 0)
    log_views = np.log(views.weight)[:, None]
    if problem.is_raw:  # the weights of CryoLike d209d6b sum to 4 pi and are added to logarithms
        raw = 4 * np.pi * views.weight[:, None]
        total = logsumexp(plain + raw, axis=0) - np.log(len(problem.displacements)) + problem.log_share
    else:
        total = logsumexp(log_sum + log_views, axis=0) + problem.log_share
    found = {"log_likelihood": total}
    if "summary" not in problem.keep:
        return found
    norm = log_views - logsumexp(log_sum + log_views, axis=0)
    share = np.exp(log_sum + norm)
    found["entropy"] = -(share * (mean + norm)).sum(axis=0)
    found["n_effective"] = np.exp(-logsumexp(square + 2 * norm, axis=0))
    found["pmax"] = np.exp((largest + norm).max(axis=0))
    found["n_credible"] = count_credible(problem, tile, structure, share, norm)
    found["credible_spread"] = _spread(views.directions, share, problem.credible)
    return found


def _spread(directions: np.ndarray, share: np.ndarray, credible: float) -> np.ndarray:
    """Return the mean angle to the best direction within the views that carry the credible share, degrees."""
    spread = np.zeros(share.shape[1])
    for image, weight in enumerate(share.T):
        order = np.argsort(-weight, kind="stable")
        inside = order[: int(np.searchsorted(np.cumsum(weight[order]), credible)) + 1]
        cosine = np.clip(directions[inside] @ directions[order[0]], -1, 1)
        spread[image] = np.degrees(np.average(np.arccos(cosine), weights=weight[inside]))
    return spread


def count_credible(
    problem: "LikelihoodProblem", tile: Tile, structure: int, share: np.ndarray, norm: np.ndarray
) -> np.ndarray:
    """Return the least number of poses that carry the credible share of each image's posterior.

    Only the views that carry all but a hundredth of the rest are scored again; poses too improbable to
    belong to the set are left out, the others counted in bins of ln P that are about 3e-4 wide.
    """
    poses = share.shape[0] * problem.rotations * len(problem.displacements)
    least = np.log((1 - problem.credible) / poses)
    width = -least / BINS
    order = np.argsort(-share, axis=0, kind="stable")
    carried = np.cumsum(np.take_along_axis(share, order, axis=0), axis=0)
    needed = np.zeros(share.shape, bool)
    inside = np.vstack([np.ones((1, share.shape[1]), bool), carried[:-1] < 1 - (1 - problem.credible) / 100])
    np.put_along_axis(needed, order, inside, axis=0)
    result = np.zeros(share.shape[1], np.int64)
    first = 0
    for block in problem.blocks(tile):
        columns = slice(first, first + len(block))
        counts = np.zeros((len(block), BINS + 1), np.int64)
        for view in np.flatnonzero(needed[:, columns].any(axis=1)):
            images = np.flatnonzero(needed[view, columns])
            _, score = problem.pose_scores(block.take(images), problem.template(structure, int(view)))
            log_p = score + problem.pose_prior + norm[view, columns][images, None, None]
            for image, values in zip(images, log_p.reshape(len(images), -1), strict=True):
                kept = values[values >= least]
                counts[image] += np.bincount(
                    np.clip((-kept / width).astype(np.int64), 0, BINS), minlength=BINS + 1
                )
        result[columns] = _least_count(counts, np.exp(-width * (np.arange(BINS + 1) + 0.5)), problem.credible)
        first += len(block)
    return result


def _least_count(counts: np.ndarray, probability: np.ndarray, credible: float) -> np.ndarray:
    """Return how many of the most probable poses carry the share: counts (m, bins), probability falling."""
    mass = np.cumsum(counts * probability, axis=1)
    goal = np.minimum(credible, mass[:, -1])[:, None]
    last = np.argmax(mass >= goal - 1e-12, axis=1)
    rows = np.arange(len(counts))
    before = np.where(last > 0, mass[rows, np.maximum(last - 1, 0)], 0.0)
    within = np.ceil((goal[:, 0] - before) / probability[last] - 1e-9)
    whole = np.cumsum(counts, axis=1)
    return whole[rows, last] - counts[rows, last] + np.clip(within, 1, counts[rows, last]).astype(np.int64)


def template_level(
    problem: "LikelihoodProblem", folds: np.ndarray, sums: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the variables of each template (S, m)."""
    d, w = np.divmod(folds[..., 1].astype(np.int64), problem.rotations)
    angles = problem.rotation_angles
    moved = problem.displacements[d]
    values: dict[str, Any] = {
        "log_likelihood_template": sums[..., 1],
        "cross_correlation_template": folds[..., 0],
        "displacement_x_template": moved[..., 0],
        "displacement_y_template": moved[..., 1],
        "inplane_rotation_template": angles[w % len(angles)],
    }
    return values
