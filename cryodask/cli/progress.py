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
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    begun = time.monotonic()
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("matching", total=None, rate="")

        def listen(progress: "Progress") -> None:
            done, total = progress.hypotheses_done, progress.hypotheses_total
            rate = (done - progress.hypotheses_resumed) / max(time.monotonic() - begun, 1e-9)
            text = f"{rate:.1f} rotations x tiles/s, tile {progress.tiles_done}/{progress.tiles_total}"
            bar.update(task, completed=done, total=total, rate=text)

        yield listen


def describe(progress: "Progress", elapsed: float) -> str:
    """Return one line: share done, rate, tiles, time left."""
    done, total = progress.hypotheses_done, progress.hypotheses_total
    fresh = done - progress.hypotheses_resumed
    rate = fresh / max(elapsed, 1e-9)
    left = f"{(total - done) / rate:.0f} s left" if rate > 0 else "time left unknown"
    return (
        f"{100 * done / max(total, 1):.1f} %, tile {progress.tiles_done}/{progress.tiles_total}, "
        f"{rate:.1f} rotations x tiles/s, {left}"
    )
