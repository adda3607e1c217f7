"""What the filtering of a tomogram found doubtful, told before hours are spent on it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryodask.jobs.tomogram_matching import constants

if TYPE_CHECKING:
    from cryodask.jobs.tomogram_matching.match_run import MatchRun
    from cryodask.search.driver import Progress

AHEAD = 4  # runs that may be prepared at once


class Notices:
    """Passes on progress and notices; tells those of a run once, as soon as its tomogram is filtered.

    Parameters
    ----------
    runs
        In the order of their work.
    listen, tell
        What hears of progress, and of notices.
    """

    def __init__(
        self, runs: Sequence["MatchRun"], listen: Callable[["Progress"], None], tell: Callable[[str], None]
    ) -> None:
        self._waiting = [run for run in runs if not run.is_finished]
        self._listen, self._tell = listen, tell
        self._told: set[str] = set()

    def listen(self, progress: "Progress") -> None:
        """Pass on progress, and tell what runs prepared meanwhile have found."""
        for run in self._waiting[:AHEAD]:
            folder = run.problem.folder
            if constants.is_prepared(Path(folder)):
                self._waiting.remove(run)
                for notice in constants.read_prepared(folder)["notices"]:
                    self.tell(f"{run.name}: {notice}")
        self._listen(progress)

    def tell(self, notice: str) -> None:
        """Pass on a notice that has not been told."""
        if notice not in self._told:
            self._told.add(notice)
            self._tell(notice)
