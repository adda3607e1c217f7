"""STAR files: a reader that forgives layout and names lines, a writer that keeps nine digits.

Hall (1991), "The STAR file: a new format for electronic data transfer and archiving". Blank lines
and comments are allowed anywhere, quotes around values, loops and name-value blocks, column names with or
without their number.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryodask.errors import InputError
from cryodask.io.files import require_exists, written_whole

TOKEN = re.compile(r"""(?<!\S)(?:'(.*?)'(?!\S)|"(.*?)"(?!\S)|(\#.*)|(\S+))""")
NUMBERED_COLUMN = re.compile(r"^(_\S+) #\d+$", re.MULTILINE)
FLOAT_FORMAT = "%.9g"


@dataclass
class _Block:
    looped: bool = False
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        index = pd.Index(self.lines, name="line", dtype="int64")
        return pd.DataFrame(self.rows, index=index, columns=self.columns, dtype="object")


def read_star(path: str | os.PathLike[str]) -> dict[str, pd.DataFrame]:
    """Read every block of a STAR file, columns of numbers as numbers.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict of str to DataFrame
        Block name without ``data_`` to its table, in file order; a name-value block has one row. Column names
        have no leading underscore. The index ``line`` is the line of each row in the file, from 1. Columns
        whose name ends in "name" stay text.

    Raises
    ------
    InputError
        No such file; "NAME line 31: 16 values for 17 columns"; a value outside a block; a block given twice.
    """
    return {name: _with_numbers(frame) for name, frame in read_star_text(path).items()}


def read_star_text(path: str | os.PathLike[str]) -> dict[str, pd.DataFrame]:
    """Read every block of a STAR file with all values as text; otherwise as `read_star`."""
    path = require_exists(path)
    blocks: dict[str, _Block] = {}
    block: _Block | None = None
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            words = split_line(line)
            if not words:
                continue
            if words[0].lower().startswith("data_") and len(words) == 1:
                block = _new_block(path, number, words[0][5:], blocks)
            elif block is None:
                raise InputError(f"{path.name} line {number}: {words[0][:40]!r} before the first data_ block")
            else:
                _add_words(path, number, words, block)
    if not blocks:
        raise InputError(f"{path.name}: no data_ block (not a STAR file?)")
    return {name: item.frame() for name, item in blocks.items()}


def read_star_table(path: str | os.PathLike[str], *columns: str) -> pd.DataFrame:
    """Read the first block that has all the given columns.

    Raises
    ------
    InputError
        As `read_star`; no such block, naming the columns that are missing; "no rows".
    """
    blocks = read_star(path)
    name = Path(path).name
    for frame in blocks.values():
        if set(columns) <= set(frame.columns):
            if frame.empty:
                raise InputError(f"{name}: no rows")
            return frame
    widest = max(blocks.values(), key=lambda frame: len(frame.columns))
    missing = ", ".join(column for column in columns if column not in widest.columns)
    raise InputError(f"{name}: missing column {missing}")


def star_numbers(path: str | os.PathLike[str], frame: pd.DataFrame, *columns: str) -> np.ndarray:
    """Return columns of a table read by `read_star` as float64 (rows, columns).

    Raises
    ------
    InputError
        "NAME line 31: tilt_angle = abc, expected a number".
    """
    values = frame[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, place = bad[0]
        found = frame[columns[place]].iloc[row]
        raise InputError(
            f"{Path(path).name} line {frame.index[row]}: {columns[place]} = {found}, expected a number"
        )
    return values


def write_star(
    path: str | os.PathLike[str],
    blocks: dict[str, pd.DataFrame],
    *,
    column_numbers: str = "#",
    overwrite: bool = False,
) -> None:
    """Write tables as loops, each under ``data_`` and its name.

    Parameters
    ----------
    path
        The file; refused if it exists and `overwrite` is False.
    blocks
        Block name to table.
    column_numbers
        "#" writes ``_name #1`` as RELION does, "" plain names as STOPGAP does.
    overwrite
        Replace an existing file.
    """
    import starfile

    content: dict[str, Any] = {**blocks}
    text = starfile.to_string(content, float_format=FLOAT_FORMAT)
    if not column_numbers:
        text = NUMBERED_COLUMN.sub(r"\1", text)
    with written_whole(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def split_line(line: str) -> list[str]:
    """Return the words of a line: quotes kept together and removed, everything after a ``#`` word dropped."""
    if "'" not in line and '"' not in line and "#" not in line:
        return line.split()
    words = []
    for match in TOKEN.finditer(line):
        single, double, comment, plain = match.groups()
        if comment is not None:
            break
        words.append(next(word for word in (single, double, plain) if word is not None))
    return words


def _new_block(path: Path, number: int, name: str, blocks: dict[str, _Block]) -> _Block:
    if name in blocks:
        raise InputError(f"{path.name} line {number}: second block data_{name}")
    return blocks.setdefault(name, _Block())


def _add_words(path: Path, number: int, words: list[str], block: _Block) -> None:
    if words[0].lower() == "loop_" and not block.columns:
        block.looped = True
    elif block.looped and not block.rows and words[0].startswith("_"):
        _add_column(path, number, words[0][1:], block)
    elif block.looped:
        if len(words) != len(block.columns):
            raise InputError(
                f"{path.name} line {number}: {len(words)} values for {len(block.columns)} columns"
            )
        block.rows.append(words)
        block.lines.append(number)
    elif words[0].startswith("_") and len(words) == 2:
        _add_column(path, number, words[0][1:], block)
        _add_value(number, words[1], block)
    else:
        raise InputError(f"{path.name} line {number}: expected _name value, found {' '.join(words)!r}")


def _add_column(path: Path, number: int, name: str, block: _Block) -> None:
    if name in block.columns:
        raise InputError(f"{path.name} line {number}: second column _{name}")
    block.columns.append(name)


def _add_value(number: int, value: str, block: _Block) -> None:
    if not block.rows:
        block.rows.append([])
        block.lines.append(number)
    block.rows[0].append(value)


def _with_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: _numbers_or_text(frame[name]) for name in frame.columns}, index=frame.index)


def _numbers_or_text(column: pd.Series) -> pd.Series:
    if str(column.name).lower().endswith("name"):
        return column.astype(str)
    try:
        return pd.to_numeric(column)
    except (ValueError, TypeError):
        return column.astype(str)
