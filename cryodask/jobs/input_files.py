"""What tells an input file from a changed one."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LARGEST_HASHED = 2**26  # bytes: larger inputs are identified by size and time


def file_identity(path: str) -> str:
    """Return size and time of a file or folder, which change when it does."""
    if "://" in path:
        return path
    stat = Path(path).stat()
    return f"{stat.st_size} bytes of {datetime.fromtimestamp(stat.st_mtime, UTC).isoformat()}"


def describe_files(paths: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return path, state and (of files that are not large) SHA-256 of named inputs."""
    found = {}
    for key, path in paths.items():
        entry: dict[str, Any] = {"path": path, "state": file_identity(path)}
        if "://" not in path and Path(path).is_file() and Path(path).stat().st_size <= LARGEST_HASHED:
            entry["sha256"] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        found[key] = entry
    return found
