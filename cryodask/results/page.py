"""One self-contained HTML page: text, tables and pictures, without network or scripts."""

import base64
import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import pandas as pd

from cryodask.results.pictures import Picture

STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #ffffff; --ink: #232936; --soft: #667085;
  --line: #e1e5ec; --mark: #0b7a8a; --code: #eef1f5; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --card: #1d2128; --ink: #e6e9ef;
  --soft: #9aa3b2; --line: #313742; --mark: #4fc3d4; --code: #262b34; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 1.18rem; margin: 44px 0 12px; }
p { margin: 0 0 10px; } .lead, figcaption, .note { color: var(--soft); }
ul { margin: 0; padding-left: 1.2em; } li { margin: 4px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-top: 26px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 1.55rem; font-weight: 650; line-height: 1.2; color: var(--mark);
  font-variant-numeric: tabular-nums; }
.tile small { font-size: 0.9rem; font-weight: 500; } .tile span { font-size: 0.83rem; color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; } .values td:last-child { text-align: left; white-space: normal; }
figure { margin: 0 0 22px; padding: 18px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
figure h3 { margin: 0 0 2px; font-size: 1rem; } figcaption { font-size: 0.9rem; margin-bottom: 14px; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px; background: #fff; }
pre { background: var(--code); border-radius: 8px; padding: 12px 16px; overflow-x: auto; margin: 0 0 8px;
  font: 0.86rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 16px; }
summary { cursor: pointer; } details .scroll { border: 0; margin-top: 8px; }
footer { margin-top: 48px; padding-top: 14px; border-top: 1px solid var(--line); font-size: 0.83rem;
  color: var(--soft); }
"""

# Key of a summary: words, unit, digits after the point, factor.
FIGURES: dict[str, tuple[str, str, int, float]] = {
    "recall": ("Recall", "%", 1, 100.0),
    "precision": ("Precision", "%", 1, 100.0),
    "f1": ("F1", "", 3, 1.0),
    "median_position_error_angstrom": ("Median position error", "Å", 1, 1.0),
    "median_angular_error_deg": ("Median angular error", "°", 1, 1.0),
    "seconds": ("Time", "s", 1, 1.0),
    "picks": ("Particles picked", "", 0, 1.0),
    "truth": ("True particles", "", 0, 1.0),
    "found": ("Found", "", 0, 1.0),
    "threshold": ("Threshold", "", 4, 1.0),
}


def html_page(title: str, lead: str, parts: Iterable[str]) -> str:
    """Return a page with a heading, one sentence below it, and its parts."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def section(heading: str, body: str) -> str:
    """Return a part of the page, or nothing if it has no body."""
    return f"<section><h2>{escape(heading)}</h2>\n{body}</section>" if body else ""


def tiles(summary: Mapping[str, Any]) -> str:
    """Return the main figures, one tile each; values that are None are shown as a dash."""
    shown = []
    for key, value in summary.items():
        words, unit, _, _ = FIGURES.get(key, (_words(key), "", 0, 1.0))
        text = _figure(key, value)
        mark = f" <small>{unit}</small>" if unit and text != "–" else ""
        shown.append(f'<div class="tile"><b>{escape(text)}{mark}</b><span>{escape(words)}</span></div>')
    return f'<div class="tiles">{"".join(shown)}</div>'


def bullets(lines: Iterable[str]) -> str:
    """Return a list of sentences."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def data_table(table: pd.DataFrame) -> str:
    """Return a table; the numbers of a column have the same digits, four significant ones in the largest."""
    head = "".join(f"<th>{escape(_words(str(name)))}</th>" for name in table.columns)
    columns = [_column(table.iloc[:, place]) for place in range(table.shape[1])]
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in zip(*columns, strict=True)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _column(values: pd.Series) -> list[str]:
    """Return the cells of a column."""
    if not pd.api.types.is_float_dtype(values):
        return [_cell(value) for value in values]
    largest = values.abs().max()
    digits = 0 if not largest > 0 else max(0, min(4, 3 - math.floor(math.log10(largest))))
    return ["–" if math.isnan(value) else f"{value:.{digits}f}" for value in values]


def value_table(values: Mapping[str, Any]) -> str:
    """Return names and values, folded away under one line."""
    rows = "".join(
        f"<tr><td>{escape(str(k))}</td><td>{escape(_cell(v))}</td></tr>" for k, v in values.items()
    )
    if not rows:
        return ""
    return (
        f"<details><summary>{len(values)} values</summary>"
        f'<div class="scroll"><table class="values"><tbody>{rows}</tbody></table></div></details>'
    )


def figure_block(picture: Picture) -> str:
    """Return a picture with its heading and caption, the PNG inside the page."""
    data = base64.b64encode(picture.png()).decode("ascii")
    return (
        f"<figure><h3>{escape(picture.title)}</h3><figcaption>{escape(picture.caption)}</figcaption>"
        f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}"></figure>'
    )


def command_blocks(commands: Iterable[str]) -> str:
    """Return command lines, one block each."""
    return "".join(f"<pre><code>{escape(command)}</code></pre>" for command in commands)


def _figure(key: str, value: Any) -> str:
    """Return the main figure of a tile as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if key in FIGURES and isinstance(value, int | float):
        _, _, digits, factor = FIGURES[key]
        return f"{value * factor:.{digits}f}"
    return _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _words(key: str) -> str:
    """Return a key as words for the eye."""
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:] if len(words.split()[0]) > 1 else words
