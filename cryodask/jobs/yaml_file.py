"""Configurations as YAML or JSON: one mapping, or whatever a job makes of the content."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from cryodask.errors import InputError


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML's usual readers take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for (key, _), name in zip(node.value, keys, strict=False):
            if keys.count(name) > 1 and name != "<<":
                problem = f"{name} stands {keys.count(name)} times in one mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML or JSON file.

    Raises
    ------
    InputError
        No YAML, or a key that stands twice in one mapping; with the line.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or "not a text in UTF-8"
        raise InputError(f"{path.name}{line}: expected YAML, {reason}") from None


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
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path.name}: expected a mapping of keys, found {type(content).__name__}")
    return content
