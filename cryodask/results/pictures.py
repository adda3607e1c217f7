"""Pictures for the report: their look, and their way into a page."""

import io
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with every kind of colour vision.
TRUTH = "#e69f00"
FOUND = "#00b4c8"
FALSE = "#e8413c"
INK = "#3b4252"
SOFT = "#9aa3b2"
DPI = 130


@dataclass(frozen=True)
class Picture:
    """A figure with its heading and one sentence that says what is seen."""

    title: str
    caption: str
    figure: Figure

    def png(self) -> bytes:
        """Return the figure as a PNG file."""
        return figure_png(self.figure)


def figure_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=DPI, facecolor="white")
    return target.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, inches, that arranges its axes itself and needs no display."""
    return Figure(figsize=(width, height), layout="constrained")


def style(axes: Axes, **labels: Any) -> Axes:
    """Give a chart quiet axes; labels are keywords of `Axes.set`."""
    axes.set(**labels)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(SOFT)
    axes.tick_params(colors=INK, labelsize=9, color=SOFT)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)
        text.set_fontsize(10)
    return axes
