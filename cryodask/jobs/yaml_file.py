"""Configurations as YAML or JSON: one mapping."""

from pathlib import Path
from typing import Any

import yaml

from cryodask.errors import InputError


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read one mapping from a YAML or JSON file (JSON is YAML).

    Raises
    ------
    InputError
        No such file, no YAML, no mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "not a text in UTF-8"
        raise InputError(f"{path.name}{line}: expected YAML, {reason}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path.name}: expected a mapping of keys, found {type(content).__name__}")
    return content
