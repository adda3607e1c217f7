"""The checkpointed store of a run.

A run lives in `<result>.partial.zarr`: the result's arrays (one tile, one shard), and under `run/` the
plan, the constants, the partial aggregates and the done-records. A task writes its region or partial
first, then its record, each under a temporary name that is then renamed: what has a record is whole.
Resuming reads the records alone.
"""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from cryodask.arrays.npy import load_npy
from cryodask.errors import InputError
from cryodask.search.aggregates import States
from cryodask.search.problem import Summary, Variable
from cryodask.search.tiles import Tile, TilePlan

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Part:
    """A stored partial aggregate of a tile: the hypotheses it covers, and its file."""

    ranges: Ranges
    name: str


@dataclass
class TileProgress:
    """What is stored of a tile."""

    is_done: bool = False
    parts: list[Part] = field(default_factory=list)
    summary: Summary = field(default_factory=dict)


@dataclass(frozen=True)
class RunStore:
    """Reads and writes one run; `path` is the `.partial.zarr` folder."""

    path: str

    @property
    def run_folder(self) -> Path:
        """Where everything lies that is not part of the result."""
        return Path(self.path) / "run"

    @property
    def constants(self) -> Path:
        """Where a job keeps what its tasks read."""
        return self.run_folder / "constants"

    @property
    def _records(self) -> Path:
        return self.run_folder / "records"

    @property
    def _partials(self) -> Path:
        return self.run_folder / "partials"

    def create(
        self,
        plan: TilePlan,
        variables: Iterable[Variable],
        dimensions: Sequence[str],
        fingerprint: Mapping[str, Any],
    ) -> None:
        """Make the folder, the empty arrays and the plan; the plan is written last and marks a valid run."""
        for folder in (self.constants, self._records, self._partials):
            folder.mkdir(parents=True)
        group = zarr.open_group(self.path, mode="a", zarr_format=3)
        group.require_group("run")  # so that readers of the hierarchy do not wonder at the folder
        for variable in variables:
            _create_array(group, variable, plan, dimensions)
        stored = {"tiles": plan.describe(), "fingerprint": dict(fingerprint)}
        write_json(self.run_folder / "plan.json", stored)

    def exists(self) -> bool:
        """Say whether a run was begun here."""
        return (self.run_folder / "plan.json").is_file()

    def read_plan(self) -> tuple[TilePlan, dict[str, Any]]:
        """Return the stored tile plan and fingerprint."""
        stored = json.loads((self.run_folder / "plan.json").read_text())
        return TilePlan.from_description(stored["tiles"]), stored["fingerprint"]

    def write_tile(self, tile: Tile, arrays: Mapping[str, np.ndarray], summary: Summary) -> None:
        """Write a finished tile and then its done-record."""
        group = zarr.open_group(self.path, mode="r+", zarr_format=3)
        for name, array in arrays.items():
            leading = (slice(None),) * (array.ndim - len(tile.start))
            target = group[name]
            assert isinstance(target, zarr.Array)
            target[leading + tile.slices] = array
        write_json(self._tile_record(tile.index), {"tile": tile.index, "summary": summary})

    def has_tile(self, tile: int) -> bool:
        """Say whether a tile is finished."""
        return self._tile_record(tile).is_file()

    def _tile_record(self, tile: int) -> Path:
        return self._records / f"tile-{tile}.json"

    def write_partial(self, tile: int, ranges: Ranges, states: States) -> Part:
        """Write a partial aggregate and then its record."""
        name = _part_name(tile, ranges)
        flat = {f"{a}/{key}": value for a, state in states.items() for key, value in state.items()}
        with replacing(self._partials / f"{name}.arrays") as temporary, temporary.open("wb") as stream:
            # one after the other, since an archive would spend as much on checksums as on writing
            stream.write(json.dumps(list(flat)).encode() + b"\n")
            for array in flat.values():
                np.save(stream, array, allow_pickle=False)
        write_json(self._records / f"{name}.json", {"tile": tile, "ranges": ranges})
        return Part(ranges, name)

    def find_partial(self, tile: int, ranges: Ranges) -> Part | None:
        """Return the partial of exactly these ranges, if it is stored."""
        name = _part_name(tile, ranges)
        return Part(ranges, name) if (self._records / f"{name}.json").is_file() else None

    def read_partial(self, part: Part) -> States:
        """Read a partial aggregate."""
        states: States = {}
        with (self._partials / f"{part.name}.arrays").open("rb") as stream:
            for key in json.loads(stream.readline()):
                aggregate, _, name = key.rpartition("/")
                states.setdefault(aggregate, {})[name] = load_npy(stream)
        return states

    def remove_partials(self, parts: Iterable[Part]) -> None:
        """Forget partials that a committed fold or tile has taken up."""
        for part in parts:
            (self._records / f"{part.name}.json").unlink(missing_ok=True)
            (self._partials / f"{part.name}.arrays").unlink(missing_ok=True)

    def progress(self) -> dict[int, TileProgress]:
        """List what is stored of each tile, without partials that a fold has taken up."""
        tiles: dict[int, TileProgress] = {}
        for path in sorted(self._records.glob("*.json")):
            try:
                record = json.loads(path.read_text())
            except (
                FileNotFoundError
            ):  # taken up this moment by a task of the interrupted run that still goes on
                continue
            tile = tiles.setdefault(record["tile"], TileProgress())
            if "summary" in record:
                tile.is_done, tile.summary = True, record["summary"]
            else:
                tile.parts.append(Part(tuple((a, b) for a, b in record["ranges"]), path.stem))
        for tile in tiles.values():
            tile.parts = _disjoint(tile.parts)
        return tiles

    def publish(self, final: str, *, keep_run: bool) -> None:
        """Give the finished result its final name, in the place of an older one.

        An older result moves into the run first: whenever this stops, there is either the older result, a run
        to resume, or the new result, and never half of one.
        """
        replaced = "replaced"
        if Path(final).exists():
            shutil.rmtree(self.run_folder / replaced, ignore_errors=True)
            Path(final).rename(self.run_folder / replaced)
        for leftover in Path(self.path).rglob("*.partial"):  # of tasks that were killed while writing a shard
            leftover.unlink(missing_ok=True)
        Path(self.path).rename(final)
        run = Path(final) / self.run_folder.name
        shutil.rmtree(run / replaced if keep_run else run, ignore_errors=True)


def _part_name(tile: int, ranges: Ranges) -> str:
    return f"part-{tile}-{hashlib.sha1(json.dumps(ranges).encode()).hexdigest()[:12]}"


def _create_array(group: zarr.Group, variable: Variable, plan: TilePlan, dimensions: Sequence[str]) -> None:
    names, lengths = zip(*variable.leading, strict=True) if variable.leading else ((), ())
    group.create_array(
        variable.name,
        shape=(*lengths, *plan.shape),
        shards=(*lengths, *plan.core),
        chunks=(*(variable.leading_chunk or (1,) * len(lengths)), *plan.chunk),
        dtype=variable.dtype,
        fill_value=variable.fill,
        compressors=BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
        dimension_names=(*names, *dimensions),
        attributes=dict(variable.attributes),
        config={"write_empty_chunks": False},
    )


def _disjoint(parts: list[Part]) -> list[Part]:
    """Keep the widest partials: a narrower one inside it was folded and only its deletion is missing."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda p: -count_hypotheses(p.ranges)):
        if not any(_overlap(part.ranges, other.ranges) for other in kept):
            kept.append(part)
    return kept


def _overlap(first: Ranges, second: Ranges) -> bool:
    return any(a < d and c < b for a, b in first for c, d in second)


def count_hypotheses(ranges: Ranges) -> int:
    """Return how many hypotheses the ranges cover."""
    return sum(stop - start for start, stop in ranges)


def join_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the union of disjoint ranges, adjacent ones joined, in rising order."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def missing_ranges(ranges: Iterable[tuple[int, int]], count: int) -> Ranges:
    """Return the ranges of 0 to count - 1 that are not covered."""
    missing, at = [], 0
    for start, stop in (*join_ranges(ranges), (count, count)):
        if start > at:
            missing.append((at, start))
        at = stop
    return tuple(missing)


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """Give a temporary path that takes the final name on success and vanishes otherwise."""
    temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content))


def is_disk_full(error: BaseException) -> bool:
    """Say whether an error, or one that caused it, is a full disk or an exhausted quota."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def telling_disk_full() -> Iterator[None]:
    """Raise a full disk as a plain OSError: the causes of an error do not travel from a worker."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def check_same_run(
    stored: Mapping[str, Any], now: Mapping[str, Any], run: str = "the unfinished run"
) -> None:
    """Refuse to resume a run whose parameters or inputs changed, naming the first difference."""
    now = json.loads(json.dumps(now))
    for key in sorted({*stored, *now}):
        before, after = stored.get(key), now.get(key)
        if before != after:
            raise InputError(f"differs from {run}: {key} {before} -> {after}")
