"""Plain text files of numbers, one row a line, with messages that name the line."""

import re
from pathlib import Path

from cryodask.errors import InputError
from cryodask.io.files import require_exists

SEPARATORS = re.compile(r"[,;\s]+")


def read_number_rows(path: Path) -> list[tuple[int, list[float]]]:
    """Read rows of numbers separated by commas, semicolons or white space.

    Parameters
    ----------
    path
        Text file; blank lines, ``#`` comments and one leading header line are skipped.

    Returns
    -------
    list of (int, list of float)
        The line number, from 1, and the numbers of each row.

    Raises
    ------
    InputError
        No such file; a word that is not a number; "no rows".
    """
    rows: list[tuple[int, list[float]]] = []
    headed = False
    text = require_exists(path).read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = SEPARATORS.split(line.partition("#")[0].strip(" \t\r,;"))
        if words == [""]:
            continue
        try:
            rows.append((number, [float(word) for word in words]))
        except ValueError:
            if rows or headed or any(_is_number(word) for word in words):
                raise InputError(
                    f"{path.name} line {number}: expected numbers, found {line.strip()!r}"
                ) from None
            headed = True
    if not rows:
        raise InputError(f"{path.name}: no rows")
    return rows


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
