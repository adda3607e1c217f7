"""Atoms of PDB and mmCIF files, through gemmi, and of plain text (x y z radius electrons)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryodask.errors import InputError
from cryodask.io.files import require_exists


@dataclass(frozen=True)
class AtomList:
    """Atoms of one model.

    Parameters
    ----------
    positions : (atoms, 3) x y z, angstrom
    element, residue, name : (atoms,) str
        Element symbol, three-letter residue, atom name.
    occupancy, b_factor : (atoms,)
    """

    positions: np.ndarray
    element: np.ndarray
    residue: np.ndarray
    name: np.ndarray
    occupancy: np.ndarray
    b_factor: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: np.ndarray) -> "AtomList":
        """Return some atoms."""
        return AtomList(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def read_models(path: str | os.PathLike[str]) -> dict[str, AtomList]:
    """Read every model of a PDB or mmCIF file, hydrogens and alternative places included.

    Of alternative places of an atom the one of highest occupancy is kept.

    Returns
    -------
    dict of str to AtomList
        By the model's number in the file.

    Raises
    ------
    InputError
        No such file; not a structure; no atoms.
    """
    import gemmi

    path = require_exists(path)
    try:
        structure = gemmi.read_structure(str(path))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path.name}: not a PDB or mmCIF file ({' '.join(str(error).split())})") from None
    models = {str(model.num): _atoms(model) for model in structure}
    models = {name: atoms for name, atoms in models.items() if len(atoms)}
    if not models:
        raise InputError(f"{path.name}: no atoms")
    return models


def read_text_model(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read BioEM's text model: lines of x y z radius electrons (angstrom).

    Returns
    -------
    positions (points, 3), radius (points,), electrons (points,)

    Raises
    ------
    InputError
        "NAME line 3: expected x y z radius electrons".
    """
    from cryodask.io.raw import open_binary

    path = require_exists(path)
    with open_binary(path) as file:
        rows = [line.split() for line in file.read().decode(errors="replace").splitlines()]
    for number, row in enumerate(rows, start=1):
        if row and (len(row) != 5 or not all(map(_is_number, row))):
            raise InputError(f"{path.name} line {number}: expected x y z radius electrons")
    table = np.array([row for row in rows if row], float)
    if not len(table):
        raise InputError(f"{path.name}: no points")
    return table[:, :3], table[:, 3], table[:, 4]


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _atoms(model: Any) -> AtomList:
    rows: list[tuple[Any, ...]] = []
    for chain in model:
        for residue in chain:
            best: dict[str, Any] = {}
            for atom in residue:
                known = best.get(atom.name)
                if known is None or atom.occ > known.occ:
                    best[atom.name] = atom
            rows.extend(
                (*atom.pos.tolist(), atom.element.name, residue.name, atom.name, atom.occ, atom.b_iso)
                for atom in best.values()
            )
    columns = list(zip(*rows, strict=True)) if rows else [()] * 8
    positions = np.array(columns[:3], float).T.reshape(-1, 3)
    element, residue, name = (np.array(column, dtype=str) for column in columns[3:6])
    return AtomList(
        positions, element, residue, name, np.array(columns[6], float), np.array(columns[7], float)
    )


def model_suffixes() -> tuple[str, ...]:
    """Return the suffixes of files of atoms, without that of compression."""
    return (".pdb", ".ent", ".cif", ".mmcif")


def is_atoms(path: str | os.PathLike[str]) -> bool:
    """Say whether a name is that of a file of atoms."""
    name = Path(path).name.lower().removesuffix(".gz")
    return name.endswith(model_suffixes())
