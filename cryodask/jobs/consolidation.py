"""The metadata of all arrays of a result in that of its root."""

import json
from collections.abc import Sequence
from pathlib import Path

from cryodask.search.store import write_json


def consolidate(path: str, folders: Sequence[str] = ()) -> None:
    """Copy the metadata of all arrays into that of the root.

    One request then tells all of them, also where folders cannot be listed (https). Zarr's own function would
    take up what belongs to the run and is removed.

    Parameters
    ----------
    path
        The result.
    folders
        Patterns of further nodes, below those of the root itself.
    """
    root = Path(path)
    patterns = ("*/zarr.json", *(f"{folder}/zarr.json" for folder in folders))
    found = [file for pattern in patterns for file in sorted(root.glob(pattern))]
    nodes = {file.parent.relative_to(root).as_posix(): file for file in found}
    nodes.pop("run", None)
    metadata = {name: json.loads(file.read_text()) for name, file in nodes.items()}
    whole = json.loads((root / "zarr.json").read_text())
    whole["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    write_json(root / "zarr.json", whole)
