"""The folder of a classification: what may be begun, continued or replaced there."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryodask.errors import InputError
from cryodask.io.particle_stack import ParticleStack
from cryodask.jobs.classify.parameters import ClassifyParameters
from cryodask.search.store import check_same_run, write_json

LARGEST_HASHED = 2**28  # bytes: larger files are told apart by size and time
MAY_CHANGE = (
    "generations",
    "averages",
    "skip_ordering",
    "isac_files",
)  # without another result of what is stored


@dataclass(frozen=True)
class RunFolder:
    """Where a classification lives.

    Parameters
    ----------
    path : Path
    resume, overwrite : bool
        Continue what is there, or replace it.
    restart : int or None
        Keep so many generations of what is there; later ones are put aside.
    """

    path: Path
    resume: bool
    overwrite: bool
    restart: int | None

    @property
    def work(self) -> Path:
        """Working images and states; removed when the result is complete."""
        return self.path / "work"

    @property
    def _plan(self) -> Path:
        return self.work / "plan.json"

    @property
    def _done(self) -> Path:
        return self.path / "run.json"

    def check(self, stack: ParticleStack, parameters: ClassifyParameters) -> None:
        """Refuse a folder that is not as the options say.

        Raises
        ------
        InputError
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            if self.resume or self.restart:
                raise InputError(f"{self.path}: nothing to resume there")
            return
        ours = self._plan.exists() or self._done.exists()
        if not self.path.is_dir() or not ours:
            raise InputError(
                f"{self.path} exists and is not a classification of cryodask; name another folder"
            )
        if self.overwrite:
            return
        if not self.resume and self.restart is None:
            if self._done.exists():
                raise InputError(f"{self.path} exists; use --overwrite")
            raise InputError(f"{self.path}: unfinished run ({self._reached()}): --resume or --overwrite")
        check_same_run(self._stored()["fingerprint"], self._fingerprint(stack, parameters))
        last = len(self.generations())
        if self.restart is not None and not 0 <= self.restart <= last:
            raise InputError(f"restart = {self.restart}: expected 0..{last}")

    def generations(self) -> list[Path]:
        """Return the folders of finished generations."""
        return [p.parent for p in sorted(self.path.glob("generation_*/outcome.npz"))]

    def _reached(self) -> str:
        states = sorted(self.work.glob("g*_r*_*.npz"))
        if not states:
            return f"{len(self.generations())} generations done"
        generation, run, passes = max(states, key=lambda p: p.stat().st_mtime).stem.split("_")
        return f"generation {int(generation[1:])}, run {int(run[1:])}, pass {int(passes)}"

    def _stored(self) -> dict[str, Any]:
        file = self._plan if self._plan.exists() else self._done
        return json.loads(file.read_text())

    def _fingerprint(self, stack: ParticleStack, parameters: ClassifyParameters) -> dict[str, Any]:
        chosen = {k: v for k, v in parameters.model_dump(mode="json").items() if k not in MAY_CHANGE}
        files = {f"file {name}": identity for name, identity in self.inputs(stack).items()}
        return chosen | {"images": len(stack)} | files

    def inputs(self, stack: ParticleStack) -> dict[str, str]:
        """Return what tells each input file: its SHA-256, or size and time of a large one."""
        files = [] if stack.places is None else [stack.source, *stack.places.files]
        return {name: _identity(Path(name)) for name in dict.fromkeys(files)}

    @contextmanager
    def open(self, stack: ParticleStack, parameters: ClassifyParameters, chunk: int) -> Iterator[None]:
        """Make the folder ready; on an error before anything is finished a new folder vanishes again."""
        if self.overwrite and self.path.exists():
            shutil.rmtree(self.path)
        fresh = not self.path.exists() or not any(self.path.iterdir())
        self.work.mkdir(parents=True, exist_ok=True)
        fingerprint = self._fingerprint(stack, parameters)
        write_json(self._plan, {"fingerprint": fingerprint, "chunk": chunk})
        self._done.unlink(missing_ok=True)
        if self.restart is not None:
            self._discard(self.restart)
        try:
            yield
        except InputError:
            if fresh:
                shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _discard(self, kept: int) -> None:
        """Move generations after the kept ones, and the states of unfinished ones, aside."""
        number = 1
        while (target := self.path / f"discarded_{number}").exists():
            number += 1
        for folder in sorted(self.path.glob("generation_*")):
            if int(folder.name.rpartition("_")[2]) > kept:
                target.mkdir(exist_ok=True)
                shutil.move(folder, target / folder.name)
        for state in self.work.glob("g*_r*_*.npz"):
            if int(state.name[1:3]) > kept:
                state.unlink()

    def finish(self, summary: dict[str, Any]) -> None:
        """Write run.json, which marks a complete result, and remove the working images."""
        stored = json.loads(self._plan.read_text())
        write_json(self._done, summary | stored)
        shutil.rmtree(self.work, ignore_errors=True)


def _identity(path: Path) -> str:
    status = path.stat()
    if path.is_file() and status.st_size <= LARGEST_HASHED:
        return "sha256 " + hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{status.st_size} bytes of {status.st_mtime_ns}"
