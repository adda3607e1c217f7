"""A report as one HTML file: figures, tables, pictures, parameters, next commands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cryodask import __version__
from cryodask.results.page import (
    bullets,
    command_blocks,
    data_table,
    figure_block,
    html_page,
    section,
    tiles,
    value_table,
)
from cryodask.results.pictures import Picture


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: Mapping[str, Any],
    lead: str = "",
    done: Sequence[str] = (),
    tables: Mapping[str, pd.DataFrame] | None = None,
    figures: Sequence[Picture] = (),
    parameters: Mapping[str, Any] | None = None,
    commands: Sequence[str] = (),
) -> Path:
    """Write one self-contained page; it needs no network and no other file.

    Parameters
    ----------
    path
        HTML file to write; replaced if it exists.
    title, lead
        Heading and the sentence under it.
    summary
        The main figures, shown as tiles; keys of `page.FIGURES` get words and units.
    done
        Sentences that say what was done.
    tables
        Tables by heading.
    figures
        Pictures in order.
    parameters
        Every setting by name.
    commands
        Command lines to try next.

    Returns
    -------
    pathlib.Path
        The file.
    """
    shown = tables or {}
    parts = [
        tiles(summary),
        section("What was done", bullets(done)),
        *(section(heading, data_table(table)) for heading, table in shown.items() if len(table)),
        section("Pictures", "".join(map(figure_block, figures))),
        section("Parameters", value_table(parameters or {})),
        section("Next commands", command_blocks(commands)),
        f"<footer>Written by cryodask {__version__}.</footer>",
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html_page(title, lead, parts), encoding="utf-8")
    return target
