"""`cryodask classify`: sort a stack of particles into validated classes."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cryodask.cli.options import (
    cluster_options,
    debug_option,
    dry_run_option,
    json_option,
    overwrite_option,
)

if TYPE_CHECKING:
    from cryodask.jobs.classify.job import Classification

F = TypeVar("F", bound=Callable[..., Any])
# Options of ISAC, each also with hyphens, then those of cryodask alone.
ISAC: tuple[tuple[str, Any, str], ...] = (
    ("img_per_grp", int, "Images of a class; default max(50, N/200)."),
    ("xr", float, "Search range along x, working pixels; default 1."),
    ("yr", float, "Along y; -1 is that of xr."),
    ("ts", float, "Step of the search; default 1."),
    ("thld_err", float, "Pixel error of a stable image at the target radius; default 0.7."),
    ("target_radius", int, "Particle radius after resampling, pixels; default 29."),
    ("target_nx", int, "Box after resampling, pixels; default 76."),
    ("ir", int, "Innermost ring; default 1."),
    ("rs", int, "Ring step; default 1."),
    ("iter_reali", int, "References are means of stable members after so many stages; default 0, never."),
    ("maxit", int, "Iterations of a restart of the stability test; default 10."),
    ("dst", float, "Every 4th iteration of a restart only multiples of this angle; 0 off."),
    ("FL", float, "Lowest low-pass of --filter tanh, cycles per pixel; default 0.2."),
    ("FH", float, "Low-pass, cycles per working pixel; default 0.45."),
    ("FF", float, "Its fall-off; default 0.2."),
    ("center_method", int, "First centring: 0 none, -1 mean, 1 centre of mass, 2 rotational average."),
    ("init_iter", int, "Most stages of a run; default 7."),
    ("stab_ali", int, "Restarts of the stability test; default 5."),
    ("filament_width", float, "Helical segments of this width, pixels of the input, at the STAR's psi."),
    ("minimum_grp_size", int, "Least images of an accepted class; -1 is 0.6 of img_per_grp."),
)
NATIVE: tuple[tuple[str, Any, str], ...] = (
    ("runs", int, "Independent runs; default 3."),
    ("capacity-slack", float, "Largest class over the mean, less 1; default 0.3, 0 is strictly equal."),
    ("junk-rate", float, "Share of noise decoys that may pass; default 0.005, 0 turns the test off."),
    ("agreement", float, "Agreement of runs that accepts an image; default 0.5."),
    ("passes", int, "Passes of the first stage; default 12."),
    ("splits", int, "Split-and-merge trials of a stage; default 20."),
)
CHOICES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("search", ("fast", "exact"), "48 angles and the strong profiles, or 256 and all; default fast."),
    ("filter", ("wiener", "tanh"), "Filter of the references; default wiener."),
    ("whiten-noise", ("yes", "no"), "Divide by the noise spectrum; default yes."),
    ("compat", ("isac2",), "Defaults and rules of ISAC2."),
    ("averages", ("full", "working", "none"), "Averages that are written; default full."),
)
FLAGS = (
    ("skip_prealignment", "Start from the middles of the images."),
    ("skip_ordering", "Leave classes in order of size."),
    ("use_origins", "Start from the origins of the STAR file."),
    ("invert", "Particles are dark."),
    ("filament_mask_ignore", "Leave what lies beside filaments as it is."),
    ("isac_files", "Write averages and lists under ISAC's names too."),
)
# Options of other versions of ISAC.
WITHOUT_EFFECT = ("gpu_class_limit", "restart_section")
FLAGS_WITHOUT_EFFECT = ("new", "use_latest_master_directory")


LEAST_BYTES = 2**20  # below it a number is no size of memory


def _spellings(name: str) -> list[str]:
    """Return an option's spelling with underscores and the one with hyphens."""
    return list(dict.fromkeys([f"--{name.replace('-', '_')}", f"--{name.replace('_', '-')}"]))


def _no_effect(context: click.Context, option: click.Parameter, value: Any) -> None:
    if value not in (None, False) and option.name is not None:
        note = f"--{option.name} has no effect: it belongs to another version of ISAC"
        click.echo(f"cryodask: note: {note}", err=True)


def _gpu_info(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        from cryodask.cli.info import show_devices

        show_devices(as_json=False)
        context.exit()


def _memory_use(context: click.Context, option: click.Parameter, value: str | None) -> float:
    """Return a share of free memory, or bytes."""
    from cryodask.errors import InputError
    from cryodask.kernels.polar_correlation_arrays import SHARE

    if value is None:
        return SHARE
    problem = InputError(f"gpu_memory_use = {value}: expected 0 < x <= 1, or bytes")
    try:
        size = float(value)
    except ValueError:
        from cryodask.cluster import parse_memory

        try:
            return float(parse_memory(value))
        except InputError:
            raise problem from None
    if not 0 < size <= 1 and size < LEAST_BYTES:
        raise problem
    return size


def parameter_options(command: F) -> F:
    """Add every option that is a parameter of a classification."""
    options: list[Callable[[Any], Any]] = []
    for name, kind, text in (*ISAC, *NATIVE):
        options.append(click.option(*_spellings(name), name.replace("-", "_"), type=kind, help=text))
    for name, choices, text in CHOICES:
        kind = click.Choice(choices)
        options.append(click.option(*_spellings(name), name.replace("-", "_"), type=kind, help=text))
    for name, text in FLAGS:
        options.append(click.option(*_spellings(name), name, is_flag=True, default=None, help=text))
    hidden: dict[str, Any] = {"hidden": True, "expose_value": False}
    for name in WITHOUT_EFFECT:
        options.append(click.option(*_spellings(name), name, callback=_no_effect, **hidden))
    for name in FLAGS_WITHOUT_EFFECT:
        options.append(click.option(*_spellings(name), name, is_flag=True, callback=_no_effect, **hidden))
    for option in reversed(options):
        command = option(command)
    return command


@click.command("classify")
@click.argument("particles")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--radius", type=float, help="Particle radius, pixels of the input.")
@click.option("--diameter", type=float, metavar="A", help="Its diameter, angstrom, instead.")
@click.option("--classes", type=int, metavar="K", help="Number of classes instead of --img_per_grp.")
@click.option("--ctf", type=click.Choice(["flip", "none"]), help="Default: flip where there is a defocus.")
@click.option("--VPP", "--vpp", "vpp", is_flag=True, default=None, help="Level amplitudes: phase-plate data.")
@click.option("--CTF", "flip", is_flag=True, help="The same as --ctf flip.")
@click.option(
    "--validate",
    "validate_by",
    type=click.Choice(["auto", "members", "views", "stability"]),
    help="What independent runs must agree about; default auto.",
)
@click.option("--margin", metavar="T|none", help="Margin to other classes, sigma; default -1.")
@click.option(
    "--generations",
    "--main_iter_limit",
    "--main-iter-limit",
    "--n_generations",
    "generations",
    type=int,
    help="Stop after so many; -1 (default) goes on until nothing is left.",
)
@click.option("--seed", "--rand_seed", "--rand-seed", "seed", type=int, help="Seed of every random number.")
@click.option("--pixel-size", type=float, help="Angstrom, instead of the file's.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many particles.")
@click.option("--drop-duplicates", is_flag=True, help="Keep the first row of an image in several.")
@click.option("--subset", type=click.Path(path_type=Path), help="File of 0-based rows to classify.")
@parameter_options
@click.option("--gpu_devices", "--gpu-devices", metavar="0,1", help="The same as --device cuda:0,1.")
@click.option(
    "--gpu_memory_use",
    "--gpu-memory-use",
    callback=_memory_use,
    metavar="X",
    help="Share of a GPU's free memory, or bytes; default 0.9.",
)
@click.option(
    "--gpu_info",
    "--gpu-info",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_gpu_info,
    help="Print the devices and stop.",
)
@click.option("--resume", is_flag=True, help="Continue an unfinished run.")
@click.option("--restart", type=int, default=-1, help="Keep so many generations and go on from there.")
@overwrite_option
@dry_run_option
@cluster_options
@json_option
@debug_option
def classify(
    particles: str,
    output: Path,
    radius: float | None,
    diameter: float | None,
    flip: bool,
    pixel_size: float | None,
    limit: int | None,
    subset: Path | None,
    drop_duplicates: bool,
    resume: bool,
    restart: int,
    overwrite: bool,
    dry_run: bool,
    cluster: str,
    workers: int | None,
    threads: int | None,
    memory: str,
    device: str,
    gpu_devices: str | None,
    gpu_memory_use: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Sort PARTICLES (RELION STAR, MRCS, cryoSPARC .cs, EMAN HDF) into classes of one view, in OUTPUT.

    The options are those of ISAC, with underscores or hyphens, and some more. An image is accepted only where
    the evidence holds: it is no noise, its alignment is stable, and independent runs agree about it.
    """
    from cryodask.cluster import parse_memory
    from cryodask.jobs.classify.job import plan_classification
    from cryodask.jobs.classify.planning import check_fits, plan_cost

    device = _device(device, gpu_devices, cluster)
    stack = _open(particles, pixel_size)
    if drop_duplicates:
        stack = stack.take(~stack.table["name"].duplicated().to_numpy())
    if subset is not None:
        stack = stack.take(_rows(subset, len(stack)))
    stack = stack.take(slice(limit))
    values = options | {"radius": _radius(radius, diameter, stack.pixel_size)}
    job = plan_classification(
        stack,
        _parameters(values, flip),
        output,
        tell=_tell,
        resume=resume,
        overwrite=overwrite,
        restart=None if restart == -1 else restart,
    )
    check_fits(job, float(parse_memory(memory)))
    if dry_run:
        _print_cost(plan_cost(job), as_json)
        return
    where = {"where": cluster, "workers": workers, "threads": threads, "memory": memory}
    _compute(job, where | {"device": device}, as_json, gpu_memory_use)


def _device(device: str, gpu_devices: str | None, cluster: str) -> str:
    """Return the device: those of --gpu_devices, or the CPU with a notice where there is none."""
    from cryodask.arrays.module import count_cuda_devices
    from cryodask.cluster import parse_device, require_gpus
    from cryodask.errors import ClusterError

    if gpu_devices is not None:
        if device.startswith("cuda"):
            raise click.UsageError("give one of --device, --gpu_devices")
        present = count_cuda_devices()
        if not present:
            _tell(f"gpu_devices = {gpu_devices}: no CUDA device here, classes are made on the CPU")
            return "cpu"
        device = f"cuda:{gpu_devices}"
        if any(number >= present for number in parse_device(device)[1]):
            raise ClusterError(
                f"gpu_devices = {gpu_devices}: {present} CUDA devices found, numbered from 0; name one of "
                "them, or --device cpu"
            )
    if device.startswith("cuda") and cluster in ("local", "threads", "cuda"):
        require_gpus(parse_device(device)[1])
    return device


def _open(particles: str, pixel_size: float | None) -> Any:
    from cryodask.errors import InputError
    from cryodask.io.particle_stack import open_particles

    if particles.startswith("bdb:"):
        raise InputError("bdb is not readable; export to HDF or STAR with your EMAN2 tools")
    return open_particles(particles, pixel_size=pixel_size)


def _rows(path: Path, count: int) -> Any:
    import numpy as np

    from cryodask.errors import InputError
    from cryodask.io.files import require_exists

    words = require_exists(path).read_text().split()
    bad = next((word for word in words if not word.isdigit() or int(word) >= count), None)
    if bad is not None or not words:
        raise InputError(f"{path.name}: {bad or 'empty'}: expected 0-based rows below {count}")
    return np.unique([int(word) for word in words])


def _radius(radius: float | None, diameter: float | None, pixel_size: float | None) -> float:
    if radius is not None and diameter is not None:
        raise click.UsageError("give one of --radius, --diameter")
    if radius is None and diameter is None:
        raise click.UsageError("--radius is required (pixels of the input), or --diameter (angstrom)")
    if radius is not None:
        return radius
    if pixel_size is None:
        raise click.UsageError("--diameter needs a pixel size; give --pixel-size")
    assert diameter is not None
    return diameter / 2 / pixel_size


def _parameters(values: dict[str, Any], flip: bool) -> Any:
    from cryodask.errors import InputError
    from cryodask.jobs.classify.parameters import make_parameters

    if flip and values["ctf"] == "none":
        raise InputError("give one of --CTF, --ctf none")
    given = dict(values)
    given["ctf"] = "flip" if flip else values["ctf"]
    if given["whiten_noise"] is not None:
        given["whiten_noise"] = given["whiten_noise"] == "yes"
    if given["margin"] not in (None, "none"):
        try:
            given["margin"] = float(given["margin"])
        except ValueError:
            raise InputError(f"margin = {given['margin']}: expected a number or none") from None
    return make_parameters(given)


def _tell(notice: str) -> None:
    click.echo(f"cryodask: note: {notice}", err=True)


def _print_cost(cost: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(cost, indent=1))
        return
    click.echo(
        f"{cost['images']} images, {cost['classes']} classes, {cost['runs']} x {cost['passes']} passes; "
        f"first stage: {cost['triples']:.2e} correlations, about {cost['core_seconds']:.0f} s of one core; "
        f"{cost['memory_bytes'] / 2**20:.0f} MiB a worker, {cost['disk_bytes'] / 2**20:.0f} MiB of disk"
    )
    click.echo("nothing was started")


def _compute(job: "Classification", where: dict[str, Any], as_json: bool, device_memory: float) -> None:
    from cryodask.cluster import open_cluster
    from cryodask.jobs.classify.job import run_classification

    show = _show_json if as_json else _Lines(job.parameters.passes, job.parameters.splits).show
    with open_cluster(**where) as client:
        try:
            summary = run_classification(
                job,
                client=client,
                listen=show,
                tell=_tell,
                device=where["device"].partition(":")[0],
                device_memory=device_memory,
            )
        except KeyboardInterrupt:
            click.echo("cryodask: what is finished is kept; continue with --resume", err=True)
            raise
    if as_json:
        click.echo(json.dumps(summary))
        return
    left = summary["images"] - summary["accounted"]
    click.echo(f"{summary['accounted']} of {summary['images']} particles in {summary['classes']} classes")
    reasons = ", ".join(f"{n} {word}" for word, n in summary["reasons"].items() if n and word != "accounted")
    if left:
        click.echo(f"{left} not accounted for: {reasons}")
    click.echo(str(job.folder.path / "report.html"))


def _show_json(event: dict[str, Any]) -> None:
    click.echo(json.dumps(event))


class _Lines:
    """One line a pass and a step on standard error."""

    def __init__(self, passes: int, trials: int) -> None:
        self.expected = passes + 6 + 4 * trials
        self.begun, self.done = time.monotonic(), 0

    def show(self, event: dict[str, Any]) -> None:
        line = getattr(self, f"_{event['event']}")(event)
        click.echo(line, err=True)

    def _pass(self, event: dict[str, Any]) -> str:
        self.done += 1
        each = (time.monotonic() - self.begun) / self.done
        missing = max(0, event["runs"] * self.expected - self.done)
        minutes, seconds = divmod(round(each * missing), 60)
        low, high = event["prices"]
        return (
            f"gen {event['generation']} run {event['run']}/{event['runs']} pass {event['pass']} | "
            f"K {event['classes']} | score {event['score']:.2f} | moved {100 * event['moved']:.1f} % | "
            f"size {event['sizes'][0]}-{event['sizes'][1]} | price {low:.1f}-{high:.1f} | "
            f"{event['seconds']:.1f} s, left {minutes}:{seconds:02d}"
        )

    def _stage(self, event: dict[str, Any]) -> str:
        return f"gen {event['generation']} run {event['run']} stage done: {event['montage']}"

    def _test(self, event: dict[str, Any]) -> str:
        return f"gen {event['generation']} testing {event['test']}"

    def _generation(self, event: dict[str, Any]) -> str:
        self.begun, self.done = time.monotonic(), 0
        agreement = "" if event["agreement"] is None else f", agreement {event['agreement']:.2f}"
        return (
            f"gen {event['generation']}: {event['accounted']} of {event['images']} accounted in "
            f"{event['classes']} classes{agreement}; noise below {event['junk_threshold']:.2f} sigma, "
            f"{100 * event['near_threshold']:.1f} % of the images within 1 sigma of that"
        )

    def _prealignment(self, event: dict[str, Any]) -> str:
        return "pre-alignment"

    def _averages(self, event: dict[str, Any]) -> str:
        return f"averages of {event['classes']} classes"
