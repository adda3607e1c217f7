"""Progress of a run: a bar on a terminal, else a line every half minute."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryodask.search.driver import Progress

LINE_SECONDS = 30.0


@contextmanager
def shown_progress() -> "Iterator[Callable[[Progress], None]]":
    """Yield a listener that shows progress on standard error while the context lasts."""
    if sys.stderr.isatty():
        with _bar() as listen:
            yield listen
    else:
        yield _Lines().listen


class _Lines:
    def __init__(self) -> None:
        self.begun = self.last = time.monotonic()

    def listen(self, progress: "Progress") -> None:
        now = time.monotonic()
        if now - self.last >= LINE_SECONDS:
            self.last = now
            click.echo(describe(progress, now - self.begun), err=True)


@contextmanager
def _bar() -> "Iterator[Callable[[Progress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    begun = time.monotonic()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("matching", total=None, state="")

        def listen(progress: "Progress") -> None:
            done, total = progress.hypotheses_done, progress.hypotheses_total
            bar.update(task, completed=done, total=total, state=_state(progress, time.monotonic() - begun))

        yield listen


def describe(progress: "Progress", elapsed: float) -> str:
    """Return one line: share done, tiles, rate, time left."""
    share = 100 * progress.hypotheses_done / max(progress.hypotheses_total, 1)
    return f"{share:.1f} %, {_state(progress, elapsed)}"


def _state(progress: "Progress", elapsed: float) -> str:
    fresh = progress.hypotheses_done - progress.hypotheses_resumed
    rate = fresh / max(elapsed, 1e-9)
    missing = progress.hypotheses_total - progress.hypotheses_done
    left = f"{missing / rate:.0f} s left" if rate > 0 else "time left unknown"
    tiles = f"tile {progress.tiles_done}/{progress.tiles_total}"
    return f"{tiles}, {rate:.1f} rotations x tiles/s, {left}"
