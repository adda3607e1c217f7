"""Working images in chunks on disk, and the coefficients that a process keeps of them.

A chunk is one file, written whole. Its borders follow from the number of images alone. Coefficients are a
pure function of an image and its centre, so a process may keep or forget them: only images whose centre moved
since the last pass are transformed again.
"""

import itertools
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cryodask.arrays.npy import load_npy
from cryodask.jobs.classify.model import Model, read_model
from cryodask.search.store import replacing

SMALL, MIDDLE, LARGE = 1024, 2048, 4096  # images of a chunk


def chunk_length(images: int) -> int:
    """Return how many images a chunk has: of the number of images alone, never of the cluster."""
    if images <= 16 * SMALL:
        return SMALL
    return MIDDLE if images <= 64 * MIDDLE else LARGE


@dataclass(frozen=True)
class Images:
    """A set of working images on disk: the particles, or the decoys.

    Parameters
    ----------
    folder : str
        Holds model.npz, and a file a chunk.
    name : str
        First word of the files' names.
    count, chunk : int
        Number of images, and of those in one chunk.
    model_name : str
        File of the model in the folder.
    device : str
        What scores them: cpu or cuda.
    device_memory : float
        Share of the free memory of a CUDA device that a batch may take, or bytes where above 1.
    """

    folder: str
    name: str
    count: int
    chunk: int
    model_name: str = "model.npz"
    device: str = "cpu"
    device_memory: float = 0.9

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.count // self.chunk)

    def path(self, chunk: int, kind: str = "") -> Path:
        """Return the file of a chunk."""
        return Path(self.folder) / f"{self.name}{kind}_{chunk:05d}.npy"

    def write(self, chunk: int, images: np.ndarray, kind: str = "") -> None:
        """Write a chunk whole."""
        with replacing(self.path(chunk, kind)) as temporary, temporary.open("wb") as stream:
            np.save(stream, images, allow_pickle=False)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return images by index, (n, L, L) float32, in the order given; brought to unit noise."""
        scale = self.scale[indices]
        first = load_npy(self.path(int(indices[0]) // self.chunk), mmap_mode="r")
        images = np.empty((len(indices), *first.shape[1:]), np.float32)
        for number in np.unique(indices // self.chunk):
            own = indices // self.chunk == number
            images[own] = load_npy(self.path(int(number)), mmap_mode="r")[indices[own] % self.chunk]
        images *= scale[:, None, None]
        return images

    @property
    def scale(self) -> np.ndarray:
        """Factor that brings each image to unit noise, (count,) float32."""
        return load_npy(Path(self.folder) / f"{self.name}_scale.npy", mmap_mode="r")

    @property
    def model(self) -> Model:
        """The model of the classification."""
        return read_model(str(Path(self.folder) / self.model_name))

    def publish(self, name: str, array: np.ndarray) -> str:
        """Write an array for the tasks of a round, and return its file."""
        path = Path(self.folder) / f"{self.name}_{name}.npy"
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        return str(path)

    def parts(self, population: np.ndarray) -> list[tuple[int, slice]]:
        """Return the chunks that hold a rising list of indices, and the place of their share in it."""
        number = population // self.chunk
        borders = np.searchsorted(number, np.arange(self.chunks + 1))
        spans = enumerate(itertools.pairwise(borders))
        return [(k, slice(int(a), int(b))) for k, (a, b) in spans if b > a]


@dataclass
class Coefficients:
    """Ring and basis coefficients of some images about their present centres."""

    indices: np.ndarray
    centres: np.ndarray
    rings: np.ndarray
    basis: np.ndarray
    used: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.rings.nbytes + self.basis.nbytes

    def fits(self, indices: np.ndarray) -> bool:
        """Say whether these are the coefficients of exactly these images."""
        return np.array_equal(self.indices, indices)

    def move(self, images: Images, centres: np.ndarray) -> None:
        """Transform again the images whose centres differ."""
        moved = np.flatnonzero((self.centres != centres).any(axis=1))
        if len(moved):
            model = images.model
            self.rings[moved] = model.grid.coefficients(images.read(self.indices[moved]), centres[moved])
            self.basis[moved] = model.basis.project(self.rings[moved])
            self.centres = centres.copy()


@dataclass
class _Kept:
    """What a process keeps between tasks, at most `budget` bytes of it."""

    budget: int = 2**28
    entries: dict[tuple[str, str, str, int], Coefficients] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    clock: int = 0

    def take(self, key: tuple[str, str, str, int]) -> Coefficients | None:
        """Hand over an entry; its holder gives it back."""
        with self.lock:
            self.clock += 1
            return self.entries.pop(key, None)

    def give(self, key: tuple[str, str, str, int], entry: Coefficients) -> None:
        """Keep an entry if it fits beside those in use: a cyclic reader would drive out all in turn."""
        with self.lock:
            entry.used = self.clock
            stale = self.clock - 4 * len(self.entries) - 64
            for old in [k for k, e in self.entries.items() if e.used < stale]:
                del self.entries[old]
            if sum(e.size for e in self.entries.values()) + entry.size <= self.budget:
                self.entries[key] = entry


_KEPT = _Kept()


def set_budget(size: int) -> None:
    """Set how many bytes of coefficients this process keeps."""
    _KEPT.budget = size


class borrowed:  # noqa: N801 (a context manager, used as a function)
    """The coefficients of images about their centres, from what the process kept or anew.

    Parameters
    ----------
    images : Images
    owner : str
        Whose they are: a run; two owners never share centres.
    chunk : int
    indices : (n,) int
    centres : (n, 2) float32
    """

    def __init__(
        self, images: Images, owner: str, chunk: int, indices: np.ndarray, centres: np.ndarray
    ) -> None:
        self.key = (images.folder, images.name, owner, chunk)
        self.images, self.indices, self.centres = images, indices, centres

    def __enter__(self) -> Coefficients:
        found = _KEPT.take(self.key)
        if found is None or not found.fits(self.indices):
            found = transformed(self.images, self.indices, self.centres)
        found.move(self.images, self.centres)
        self.found = found
        return found

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            _KEPT.give(self.key, self.found)


def transformed(images: Images, indices: np.ndarray, centres: np.ndarray) -> Coefficients:
    """Return the coefficients of images about centres."""
    model = images.model
    rings = model.grid.coefficients(images.read(indices), centres)
    return Coefficients(indices.copy(), centres.copy(), rings, model.basis.project(rings))
