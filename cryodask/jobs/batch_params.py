"""Repeat the rows of a parameter STAR for many tomograms, as GAPSTOP's batch_params does."""

import re
from pathlib import Path

import pandas as pd

from cryodask.errors import InputError

TOKEN = re.compile(r"\$[xX]+")
TOKEN_COLUMNS = ("tomo_name", "tomo_mask_name", "wedgelist_name", "outputdir")


def read_numbers(path: str | Path) -> list[int]:
    """Return the tomogram numbers of a text file: integers between any whitespace, `#` begins a comment.

    Raises
    ------
    InputError
        If the file does not exist, holds no number, or a word is no integer >= 0.
    """
    path = Path(path)
    # a pipe of the shell, <(seq 1 9), is no regular file
    if not path.exists() or path.is_dir():
        raise InputError(f"{path.name}: no such file (looked in {path.absolute().parent})")
    numbers = []
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        for word in text.partition("#")[0].split():
            if not word.isdecimal():
                raise InputError(f"{path.name} line {line}: {word}: expected an integer >= 0")
            numbers.append(int(word))
    if not numbers:
        raise InputError(f"{path.name}: no numbers")
    return numbers


def repeat_rows(template: pd.DataFrame, numbers: list[int], name: str = "template") -> pd.DataFrame:
    r"""Return every template row once for each tomogram number.

    Parameters
    ----------
    template
        Parameter columns as text. Each token `$x`, `$xx`, .. in the columns tomo_name, tomo_mask_name,
        wedgelist_name and outputdir becomes the number, padded with zeros to the count of x.
    numbers
        Tomogram numbers; also written to tomo_num.
    name
        Of the template file, for messages.

    Raises
    ------
    InputError
        If tomo_name has no token, tomo_num has one, or a number has more digits than a token.
    """
    rows = [{str(key): str(cell) for key, cell in row.items()} for row in template.to_dict("records")]
    for index, row in enumerate(rows):
        place = f"{name} row {index}"
        if TOKEN.search(str(row.get("tomo_num", ""))):
            raise InputError(f"{place}: tomo_num = {row['tomo_num']}: no token here, the number is put in")
        if not TOKEN.search(str(row.get("tomo_name", ""))):
            raise InputError(f"{place}: tomo_name = {row.get('tomo_name', 'none')}: no $x token")
    repeated = [_with_number(row, number, name) for row in rows for number in numbers]
    columns = [*template.columns, *(["tomo_num"] if "tomo_num" not in template.columns else [])]
    return pd.DataFrame(repeated, columns=columns)


def _with_number(row: dict[str, str], number: int, name: str) -> dict[str, str]:
    def digits(token: re.Match[str]) -> str:
        width, text = len(token.group()) - 1, str(number)
        if len(text) > width:
            raise InputError(
                f"{name}: number {number} needs {len(text)} digits, token {token.group()} has {width}"
            )
        return text.zfill(width)

    filled = {column: TOKEN.sub(digits, str(row[column])) for column in TOKEN_COLUMNS if column in row}
    return {**row, **filled, "tomo_num": str(number)}
