"""Structures to compare: maps, atoms of PDB and mmCIF files, BioEM's text models."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cryodask.errors import InputError
from cryodask.io.atoms import AtomList, is_atoms, read_models, read_text_model
from cryodask.io.files import require_exists
from cryodask.io.volume import read_header, read_volume
from cryodask.jobs.likelihood.parameters import Atoms, LikelihoodParameters, StructureSettings
from cryodask.jobs.likelihood.ready_templates import ReadyTemplates, is_ready, read_ready

# radius (angstrom) and electrons of residues as spheres: CryoLike and BioEM
RESIDUES = {
    "CYS": (2.75, 64), "PHE": (3.2, 88), "LEU": (3.1, 72), "TRP": (3.4, 108), "VAL": (2.95, 64),
    "ILE": (3.1, 72), "MET": (3.1, 80), "HIS": (3.05, 82), "TYR": (3.25, 96), "ALA": (2.5, 48),
    "GLY": (2.25, 40), "PRO": (2.8, 62), "ASN": (2.85, 66), "THR": (2.8, 64), "SER": (2.6, 56),
    "ARG": (3.3, 93), "GLN": (3.0, 78), "ASP": (2.8, 59), "LYS": (3.2, 79), "GLU": (2.95, 53),
}  # fmt: skip
UNKNOWN_RESIDUE = (3.0, 68.0)


@dataclass(frozen=True)
class AtomModel:
    """Points with a density each; positions (atoms, 3) x y z in angstrom about the centre of rotation.

    `radius` (atoms,) angstrom, `weight` (atoms,) electrons, or `element` and `b_factor` (A^2) for scattering.
    """

    positions: np.ndarray
    radius: np.ndarray
    weight: np.ndarray
    element: tuple[str, ...] = ()
    b_factor: np.ndarray | None = None

    is_map: ClassVar[bool] = False

    @property
    def reach(self) -> float:
        """Largest distance of an atom from the centre of rotation, angstrom."""
        return float(np.linalg.norm(self.positions, axis=1).max())


@dataclass(frozen=True)
class MapModel:
    """A map (z, y, x) and its voxel size in angstrom; the centre of rotation is voxel n//2."""

    volume: np.ndarray
    voxel_size: float
    is_map: ClassVar[bool] = True


@dataclass(frozen=True)
class FunctionModel:
    """A structure given by its transform at frequencies (..., 3) x y z in 1/angstrom."""

    transform: Callable[[np.ndarray], np.ndarray]
    is_map: ClassVar[bool] = False


@dataclass(frozen=True)
class Structure:
    """A named structure, its symmetry and prior weight, and the file it is made of."""

    name: str
    model: AtomModel | MapModel | FunctionModel | ReadyTemplates
    symmetry: str
    prior: float
    path: str


def load_structures(parameters: LikelihoodParameters) -> tuple[list[Structure], list[str]]:
    """Read every structure of a configuration.

    Returns
    -------
    structures, and notices for the user

    Raises
    ------
    InputError
        A wrong file or value; a name used twice.
    """
    notices: list[str] = []
    found: list[Structure] = []
    for number, settings in enumerate(parameters.structures):
        with parameters.source.placed(f"structures[{number}]"):
            for name, model in _models(settings, parameters.atoms, notices):
                found.append(Structure(name, model, settings.symmetry, settings.prior, settings.path))
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise parameters.source.error(f'name "{name}" used twice')
    return found, notices


def _models(
    settings: StructureSettings, atoms: Atoms, notices: list[str]
) -> Iterator[tuple[str, AtomModel | MapModel | ReadyTemplates]]:
    path = require_exists(settings.path)
    if settings.kind == "templates" or is_ready(path):
        yield from _ready(path, settings)
        return
    if settings.i_template != "all":
        raise InputError(f"i_template = {settings.i_template}: {path.name} holds no ready templates")
    name = settings.name or path.name.removesuffix(".gz").rsplit(".", 1)[0]
    kind = settings.kind or _kind(path)
    if kind == "map":
        yield name, _read_map(path, settings)
    elif kind == "text":
        positions, radius, electrons = read_text_model(path)
        centre = np.average(positions, axis=0, weights=electrons) * (atoms.centre != "none")
        yield name, AtomModel(positions - centre, radius, electrons)
    else:
        models = read_models(path)
        wanted = _wanted(path, list(models), settings.models)
        made = {number: _atom_model(path, models[number], settings, atoms, notices) for number in wanted}
        centre = next(iter(made.values())).positions.mean(axis=0) if atoms.centre == "mean" else np.zeros(3)
        if atoms.centre == "mass":
            first = next(iter(made.values()))
            centre = np.average(first.positions, axis=0, weights=first.weight)
        for number, model in made.items():
            label = name if len(made) == 1 else f"{name}_{number}"
            yield (
                label,
                AtomModel(
                    model.positions - centre, model.radius, model.weight, model.element, model.b_factor
                ),
            )


def _ready(path: Path, settings: StructureSettings) -> Iterator[tuple[str, ReadyTemplates]]:
    chosen = settings.i_template
    numbers = None if chosen == "all" else (chosen,) if isinstance(chosen, int) else tuple(chosen)
    found = list(read_ready(path, numbers, is_map=settings.kind == "map"))
    for name, model in found:
        yield (settings.name if settings.name and len(found) == 1 else name), model


def _kind(path: Path) -> str:
    if is_atoms(path):
        return "atoms"
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".txt") or "." not in name:  # BioEM's models have no suffix
        return "text"
    return "map"


def _wanted(path: Path, known: list[str], models: str) -> list[str]:
    if models in ("first", "all"):
        return known[:1] if models == "first" else known
    wanted: list[str] = []
    for part in models.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise InputError(f'models = {models}: expected first, all or numbers such as "1-18"')
        wanted += [str(i) for i in range(int(first), int(last or first) + 1)]
    for number in wanted:
        if number not in known:
            raise InputError(f"{path.name}: no model {number}, found {known[0]} to {known[-1]}")
    return wanted


def _read_map(path: Path, settings: StructureSettings) -> MapModel:
    header = read_header(path)
    if len(set(header.shape)) != 1:
        z, y, x = header.shape
        raise InputError(f"{path.name}: map {z}x{y}x{x}: expected a cube")
    voxel_size = settings.voxel_size or header.voxel_size
    if voxel_size is None:
        raise InputError(f"{path.name}: voxel size 0 in the header, set voxel_size")
    volume = read_volume(path).astype(np.float64)
    if not np.isfinite(volume).all():
        raise InputError(f"{path.name}: {np.sum(~np.isfinite(volume))} non-finite voxels")
    return MapModel(volume, voxel_size)


def _atom_model(
    path: Path, atoms: AtomList, settings: StructureSettings, options: Atoms, notices: list[str]
) -> AtomModel:
    selection = settings.select or (options.selection if options.model.startswith("residue") else "all")
    chosen = atoms.take(_selected(atoms, selection, options))
    if not len(chosen):
        count = int((atoms.name == "CA").sum())
        raise InputError(f'{path.name}: selection "{selection}" matches no atoms ({count} residues)')
    if options.model == "scattering":
        b_factor = chosen.b_factor + options.b_factor
        weight = chosen.occupancy
        return AtomModel(
            chosen.positions, np.zeros(len(chosen)), weight, tuple(chosen.element.tolist()), b_factor
        )
    radius, electrons = _spheres(chosen, options, path, notices)
    return AtomModel(chosen.positions, radius, electrons)


def _selected(atoms: AtomList, selection: str, options: Atoms) -> np.ndarray:
    words = selection.split()
    if selection.strip() == "all":
        chosen = np.ones(len(atoms), bool)
    elif len(words) >= 2 and words[0] == "name":
        chosen = np.isin(atoms.name, words[1:])
    else:
        raise InputError(f'selection = {selection}: expected all, or "name CA ..."')
    if not options.hydrogens:
        chosen &= ~np.isin(atoms.element, ["H", "D"])
    return np.flatnonzero(chosen)


def _spheres(
    atoms: AtomList, options: Atoms, path: Path, notices: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return radius and electrons of each residue or atom."""
    import gemmi

    if options.model.startswith("residue"):
        known = [RESIDUES.get(name, UNKNOWN_RESIDUE) for name in atoms.residue]
        unknown = int((~np.isin(atoms.residue, list(RESIDUES))).sum())
        if unknown:
            notices.append(f"{path.name}: {unknown} residues have no radius in the table, 3.0 A taken")
        radius, electrons = np.array(known, float).T
        keys = atoms.residue
    else:
        elements = [gemmi.Element(name) for name in atoms.element]
        radius = np.array([element.vdw_r for element in elements])
        electrons = np.array([element.atomic_number for element in elements], float)
        keys = atoms.element
    if isinstance(options.radius, dict):
        radius = np.array([options.radius.get(key, r) for key, r in zip(keys, radius, strict=True)])
    elif options.radius != "table":
        radius = np.full(len(atoms), float(options.radius))
    return radius, electrons


def check_fits(structure: Structure, box_length: float) -> None:
    """Refuse atoms that lie outside the box.

    Raises
    ------
    InputError
        "NAME: radius 142 A, box allows 64; use a box of at least 284 A".
    """
    model: Any = structure.model
    if isinstance(model, AtomModel) and model.reach > box_length / 2:
        raise InputError(
            f"{structure.name}: radius {model.reach:.0f} A, box allows {box_length / 2:.0f}; "
            f"use a box of at least {2 * model.reach:.0f} A"
        )
