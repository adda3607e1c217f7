"""Classification of a stack of particles: from files to a folder of results."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from cryodask import __version__
from cryodask.arrays.npy import load_npz
from cryodask.errors import InputError, ResourceError
from cryodask.io.image_stacks import ImagePlaces, write_stack
from cryodask.io.particle_stack import ParticleStack
from cryodask.jobs.classify.acceptance import Reason
from cryodask.jobs.classify.assembled import Assembled, assemble
from cryodask.jobs.classify.averages import FullAverage, full_average
from cryodask.jobs.classify.centring import centred_images
from cryodask.jobs.classify.checkpoints import Outcome, write_arrays
from cryodask.jobs.classify.dataset import result_dataset, write_dataset
from cryodask.jobs.classify.filaments import filament_axis, filament_keys, turn_back_filaments
from cryodask.jobs.classify.generations import Listener, Search, late_junk, search_generations
from cryodask.jobs.classify.isac_files import write_isac_files
from cryodask.jobs.classify.ordering import Chain, chain_classes
from cryodask.jobs.classify.outputs import (
    Pictures,
    class_table,
    ordered,
    reason_counts,
    write_class_tables,
    write_particle_tables,
)
from cryodask.jobs.classify.parameters import ClassifyParameters, check_against_images
from cryodask.jobs.classify.passes import Population
from cryodask.jobs.classify.prealign import prealign
from cryodask.jobs.classify.preparation import WorkingShape
from cryodask.jobs.classify.prepare import Prepared, RawStack, optics_of, prepare, write_model
from cryodask.jobs.classify.run_folder import RunFolder
from cryodask.jobs.classify.shards import Images, chunk_length
from cryodask.kernels.class_sums import turned_back
from cryodask.kernels.polar_correlation_arrays import SHARE
from cryodask.search.rounds import Rounds, open_rounds
from cryodask.search.store import is_disk_full

if TYPE_CHECKING:
    from distributed import Client

Teller = Callable[[str], None]


@dataclass(frozen=True)
class Classification:
    """A checked classification that has not begun.

    Parameters
    ----------
    stack : ParticleStack
    parameters : ClassifyParameters
        With `ctf` resolved.
    folder : RunFolder
    chunk : int
        Images of a task.
    """

    stack: ParticleStack
    parameters: ClassifyParameters
    folder: RunFolder
    chunk: int

    @property
    def shape(self) -> WorkingShape:
        """Input and working size."""
        p = self.parameters
        bar = max(p.filament_width, 0.0)
        return WorkingShape(self.stack.box, p.working_box, p.radius, p.target_radius, bar)

    @property
    def axis(self) -> np.ndarray | None:
        """Angle of the filament in each image, radians from x to y; None for particles."""
        return filament_axis(self.stack.table) if self.parameters.filament_width > 0 else None

    @property
    def pixel_size(self) -> float:
        """Angstrom, or 1 where it is not known."""
        assert self.stack.pixel_size is not None
        return self.stack.pixel_size

    @property
    def working_pixel(self) -> float:
        """Angstrom of a working pixel."""
        return self.pixel_size / self.shape.rho


def plan_classification(
    stack: ParticleStack,
    parameters: ClassifyParameters,
    output: Path,
    *,
    tell: Teller,
    resume: bool = False,
    overwrite: bool = False,
    restart: int | None = None,
    chunk: int | None = None,
) -> Classification:
    """Check a stack, its parameters and the output folder; nothing is written.

    Raises
    ------
    InputError
    """
    _check_names(stack)
    if stack.pixel_size is None and parameters.ctf != "none" and stack.has_defocus:
        raise InputError(f"{Path(stack.source).name}: no pixel size for the CTF; give --pixel-size")
    columns = ", ".join(stack.blocks[stack.block].columns) if stack.block else "none"
    check_against_images(
        parameters, count=len(stack), box=stack.box, has_defocus=stack.has_defocus, columns=columns
    )
    if stack.pixel_size is None:
        tell("no pixel size in the files: lengths are given in pixels")
        stack = replace(stack, images=stack.images.assign_attrs(pixel_size=1.0))
    if parameters.vpp:
        parameters = parameters.model_copy(update={"ctf": "none"})
    if parameters.ctf is None:
        parameters = parameters.model_copy(update={"ctf": "flip" if stack.has_defocus else "none"})
        if not stack.has_defocus:
            tell("no defocus in the particles: classified without CTF")
    if parameters.runs == 1:
        tell("runs = 1: agreement between independent runs is not tested")
    _check_optics(stack, parameters)
    if parameters.filament_width > 0:
        filament_axis(stack.table, Path(stack.source).name)
    folder = RunFolder(output, resume=resume, overwrite=overwrite, restart=restart)
    folder.check(stack, parameters)
    return Classification(stack, parameters, folder, chunk or chunk_length(len(stack)))


def _check_names(stack: ParticleStack) -> None:
    """Refuse an image that stands in two rows: it would vote twice."""
    names = stack.table["name"]
    again = np.flatnonzero(names.duplicated())
    if len(again):
        name = names.iloc[again[0]]
        first = int(np.flatnonzero(names == name)[0])
        raise InputError(
            f"{Path(stack.source).name} rows {first + 1} and {again[0] + 1}: the same image {name}; "
            "--drop-duplicates keeps the first"
        )


def _check_optics(stack: ParticleStack, parameters: ClassifyParameters) -> None:
    if parameters.ctf != "flip":
        return
    limits = {"voltage": (10, 1000, "kV"), "cs": (0, 100, "mm"), "amplitude_contrast": (0, 0.999, "")}
    for name, (low, high, unit) in limits.items():
        values = stack.table[name].to_numpy(np.float64)
        bad = np.flatnonzero(~((values >= low) & (values <= high)))
        if len(bad):
            row = bad[0]
            expected = f"expected {low}..{high} {unit}".rstrip()
            raise InputError(f"{Path(stack.source).name} row {row + 1}: {name} = {values[row]:g}, {expected}")


def run_classification(
    job: Classification,
    *,
    client: "Client | None" = None,
    listen: Listener = lambda event: None,
    tell: Teller = lambda notice: None,
    device: str = "cpu",
    device_memory: float = SHARE,
) -> dict[str, Any]:
    """Run a classification and write its folder; return the summary that run.json holds.

    Parameters
    ----------
    job : Classification
    client : Client or None
        Threads of this process without one.
    listen, tell : callable
        Called with every pass and step, and with notices.
    device : str
        cpu, or cuda: then every worker has a CUDA device of its own.
    device_memory : float
        Share of the free memory of a device that a batch may take, or bytes where above 1.

    Raises
    ------
    InputError, ResourceError, ClusterError
        What is finished stays and can be resumed.
    """
    begun = time.monotonic(), time.process_time()
    with (
        open_rounds(client) as rounds,
        _resumable(job.folder.path),
        job.folder.open(job.stack, job.parameters, job.chunk),
    ):
        prepared, raw = _prepare(job, rounds, tell, device, device_memory)
        centres = _centres(job, prepared, rounds, tell, listen)
        write_model(prepared, centres, job.parameters, rounds)
        search = Search(
            job.folder.path,
            job.folder.work,
            job.parameters,
            prepared.particles,
            prepared.decoys,
            centres,
            prepared.usable,
            rounds,
            listen,
        )
        outcomes = search_generations(search)
        found = assemble(len(job.stack), prepared.usable, outcomes, job.parameters.runs)
        if job.axis is not None:
            turn_back_filaments(found, job.axis)
        found.images.loc[late_junk(search, outcomes), "reason"] = int(Reason.JUNK)
        listen({"event": "averages", "classes": len(found.classes)})
        pictures = _pictures(job, search, found, raw, rounds)
        return _write(job, found, pictures, outcomes, begun, tell)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say of a full disk what is kept and how to go on."""
    try:
        yield
    except ResourceError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        named = error.filename if isinstance(error, OSError) and error.filename else folder
        raise ResourceError(
            f"{named}: No space left on device; what is finished is kept: free some, then --resume"
        ) from error


def _prepare(
    job: Classification, rounds: Rounds, tell: Teller, device: str, device_memory: float
) -> tuple[Prepared, RawStack]:
    stack, p = job.stack, job.parameters
    group = np.unique(stack.table["optics_group"].to_numpy(), return_inverse=True)[1]
    optics = optics_of(stack.table, job.pixel_size) if p.ctf == "flip" else None
    sign = -1 if p.invert else 1
    raw = RawStack(_places(job), optics, group, job.shape, sign, job.axis, p.filament_mask_ignore)
    particles = Images(
        str(job.folder.work), "particles", len(stack), job.chunk, device=device, device_memory=device_memory
    )
    prepared = prepare(raw, particles, p, rounds, tell)
    if prepared.contrast < 0:
        tell("particles are darker than their surroundings on average; --invert if they are dark")
    return prepared, raw


def _places(job: Classification) -> ImagePlaces:
    """Return where tasks find the images; an array is written to the work folder first."""
    if job.stack.places is not None:
        return job.stack.places
    path = job.folder.work / "input.npy"
    count, box = len(job.stack), job.stack.box
    if not path.exists():
        partial = path.with_name("input.partial.npy")
        target = np.lib.format.open_memmap(partial, "w+", np.float32, (count, box, box))
        for start in range(0, count, job.chunk):
            rows = slice(start, start + job.chunk)
            target[rows] = job.stack.images[rows].to_numpy()
        target.flush()
        partial.replace(path)
    return ImagePlaces((str(path.absolute()),), np.zeros(count, np.int64), np.arange(count))


def _centres(
    job: Classification, prepared: Prepared, rounds: Rounds, tell: Teller, listen: Listener
) -> np.ndarray:
    """Return where passes begin: the pre-aligned centres, or those of the STAR file."""
    stack, p = job.stack, job.parameters
    start = np.zeros((len(stack), 2), np.float32)
    if p.use_origins:
        origins = stack.table[["origin_x", "origin_y"]].fillna(0).to_numpy(np.float64)
        start = (-origins / job.working_pixel).astype(np.float32)
        if job.axis is not None:
            straight = np.zeros(len(stack), bool)
            start = turned_back(start, job.axis, straight).astype(np.float32)
            start[:, 0] = 0
    if p.center_method:
        if p.center_method > 2:
            tell(f"center_method = {p.center_method}: taken for 2, the rotational average")
        start = centred_images(prepared.particles, p.center_method, job.shape, rounds)
    if p.skip_prealignment:
        return start
    stored = job.folder.work / "prealignment.npz"
    if not stored.exists():
        listen({"event": "prealignment"})
        images = replace(prepared.particles, model_name="first_model.npz")
        first = Prepared(images, prepared.decoys, prepared.usable, prepared.contrast)
        write_model(first, start, p, rounds)
        rows = np.flatnonzero(prepared.usable)
        found = prealign(Population(images, rows, start[rows], "prealignment", rounds), tell)
        centres = start.copy()
        centres[rows] = found.centres
        write_arrays(stored, {"centres": centres})
        _write_prealignment(job, centres, found)
    return load_npz(stored)["centres"]


def _write_prealignment(job: Classification, centres: np.ndarray, found: Any) -> None:
    import pandas as pd

    folder = job.folder.path / "prealignment"
    folder.mkdir(exist_ok=True)
    shifts = pd.DataFrame(centres / job.shape.rho, columns=["x_pixels", "y_pixels"])
    shifts.to_csv(folder / "initial_shifts.csv", index_label="image", float_format="%.4f")
    found.table.to_csv(folder / "iterations.csv", index=False, float_format="%.6g")
    _write_pictures(folder / "averages.mrcs", found.pictures, job.working_pixel)


def _pictures(
    job: Classification, search: Search, found: Assembled, raw: RawStack, rounds: Rounds
) -> Pictures:
    model, p = search.particles.model, job.parameters
    sizes = found.classes["size"].to_numpy() if len(found.classes) else np.zeros(0, np.int64)
    working = np.zeros((0, model.box, model.box), np.float32)
    full: list[FullAverage] | None = [] if p.averages == "full" else None
    if not len(sizes):
        return Pictures(working, full, _by_number(0))
    working = model.grid.images(found.averages, model.box)
    chain = _by_number(len(sizes))
    if not p.skip_ordering:
        chain = chain_classes(model, found.averages, sizes, search.offsets)
    if full is not None:
        tasks = []
        for number in range(len(sizes)):
            rows = found.members(number)
            poses = found.poses(rows)
            poses = poses.replaced(centre=poses.centre / np.float32(job.shape.rho))
            keys = rows if job.axis is None else filament_keys(job.stack.table)[rows]
            tasks.append((raw.take(rows), keys, poses, job.pixel_size, p.seed))
        full = rounds.map(full_average, tasks)
    return Pictures(working, full, chain)


def _by_number(count: int) -> Chain:
    return Chain(np.arange(count), np.zeros(count), np.zeros(count, bool), np.zeros((count, 2)))


def _write(
    job: Classification,
    found: Assembled,
    pictures: Pictures,
    outcomes: list[Outcome],
    begun: tuple[float, float],
    tell: Teller,
) -> dict[str, Any]:
    """Write every file of the result, run.json last."""
    folder, rho = job.folder.path, job.shape.rho
    table = class_table(found, pictures) if len(found.classes) else _empty_table()
    write_class_tables(folder, table)
    shown = pictures.working
    _write_pictures(folder / "working_averages.mrcs", pictures.working, job.working_pixel)
    scale, pixel = 1.0, job.working_pixel
    if pictures.full:
        shown, scale, pixel = np.stack([a.image for a in pictures.full]), 1 / rho, job.pixel_size
        _write_pictures(folder / "class_averages.mrcs", shown, pixel)
    if job.parameters.averages != "none":
        _write_pictures(folder / "ordered_class_averages.mrcs", ordered(shown, pictures.chain, scale), pixel)
    if job.parameters.isac_files:
        write_isac_files(
            folder,
            found,
            pictures.working,
            pictures.chain,
            pixel_size=job.working_pixel,
            ratio=rho,
            radius=job.parameters.target_radius,
        )
    rows = write_particle_tables(folder, job.stack, found, job.working_pixel)
    assert sum(rows) == len(job.stack), "every row is in exactly one of the outputs"
    summary = _summary(job, found, outcomes, begun)
    dataset = result_dataset(
        found,
        pictures,
        table,
        outcomes,
        pixel_size=job.pixel_size,
        working_pixel=job.working_pixel,
        box=job.stack.box,
        attributes=_attributes(job, summary),
    )
    write_dataset(folder / "result.zarr", dataset)
    _write_report(folder, dataset, table, summary)
    (folder / "config.yaml").write_text(yaml.safe_dump(job.parameters.model_dump(mode="json")))
    if not len(found.classes):
        _tell_why(summary["reasons"], tell)
    job.folder.finish(summary)
    return summary


def _write_pictures(path: Path, pictures: np.ndarray, pixel_size: float) -> None:
    """Write an MRC stack, unless there is no picture: the format knows no empty stack."""
    if len(pictures):
        write_stack(path, pictures, pixel_size=pixel_size, overwrite=True)


def _empty_table() -> Any:
    import pandas as pd

    names = [
        "class",
        "order",
        "run",
        "generation",
        "size",
        "mean_score",
        "pixel_error",
        "mirror_stable",
        "jaccard",
        "agreement",
    ]
    more = ["spread_ratio", "price", "resolution", "resolution_0143", "ssnr"]
    return pd.DataFrame({name: np.zeros(0) for name in (*names, *more)})


def _summary(
    job: Classification, found: Assembled, outcomes: list[Outcome], begun: tuple[float, float]
) -> dict[str, Any]:
    reasons = reason_counts(found)
    return {
        "cryodask_version": __version__,
        "images": len(job.stack),
        "accounted": reasons["accounted"],
        "classes": len(found.classes),
        "generations": len(outcomes),
        "reasons": reasons,
        "junk_thresholds": [o.junk if np.isfinite(o.junk) else None for o in outcomes],
        "decoy_quantiles": [[round(float(q), 4) for q in o.decoys] for o in outcomes],
        "agreement_tested": job.parameters.runs > 1,
        "seed": job.parameters.seed,
        "seconds": round(time.monotonic() - begun[0], 2),
        "client_cpu_seconds": round(time.process_time() - begun[1], 2),
    }


def _attributes(job: Classification, summary: dict[str, Any]) -> dict[str, Any]:
    stable = {key: value for key, value in summary.items() if "seconds" not in key}
    return {
        "job": "classify",
        "cryodask_version": __version__,
        "parameters": job.parameters.model_dump_json(),
        "source": job.stack.source,
        "inputs": json.dumps(job.folder.inputs(job.stack)),
        "pixel_size": job.pixel_size,
        "working_pixel": job.working_pixel,
        "summary": json.dumps(stable),
    }


def _tell_why(reasons: dict[str, int], tell: Teller) -> None:
    ranked = sorted((n, word) for word, n in reasons.items() if word != "accounted" and n)[::-1][:3]
    tell("no class was accepted; images are " + ", ".join(f"{word} ({n})" for n, word in ranked))


def _write_report(folder: Path, dataset: Any, table: Any, summary: dict[str, Any]) -> None:
    from cryodask.results.class_report import write_class_report

    write_class_report(folder / "report.html", dataset, table, summary)
