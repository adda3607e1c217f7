"""Where the parameters of one tomogram were written: a row of a file, in a dialect."""

from dataclasses import dataclass
from typing import Literal

from cryodask.jobs.messages import Source
from cryodask.jobs.tomogram_matching.star_columns import COLUMN_OF_KEY


@dataclass(frozen=True)
class RowSource(Source):
    """A file (empty for a Python call), its 0-based row, line, dialect and words."""

    row: int = 0
    line: int | None = None
    dialect: Literal["star", "native"] = "native"
    words: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """The words that begin a message, e.g. `params.star line 31 (row 0): `."""
        if not self.file:
            return ""
        line = f" line {self.line} (row {self.row})" if self.line is not None else f" row {self.row}"
        return f"{self.file}{line}: "

    def label(self, key: str) -> str:
        """Return the user's word for a dotted native key: the column in STAR jobs that do not use the key."""
        return key if self.dialect == "native" or key in self.words else COLUMN_OF_KEY.get(key, key)
