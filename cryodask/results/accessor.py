"""The `.cryo` accessor of xarray datasets."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr

from cryodask.errors import InputError
from cryodask.io.files import is_url, require_new, written_whole
from cryodask.io.remote import open_dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cryodask.results.class_selection import ClassTables

CLASSES = "cryodask_classes"  # likewise: the folder or the tables of a classification
PLAN = "cryodask_plan"  # key of a lazy dataset's encoding under which the job keeps what stores it


@xr.register_dataset_accessor("cryo")
class CryoAccessor:
    """What a result dataset can do.

    Parameters
    ----------
    dataset
        A result of cryodask, lazy or opened.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def store(
        self, path: str | Path, *, resume: bool = False, overwrite: bool = False, **options: Any
    ) -> Path:
        """Compute a lazy result into a Zarr store on the active Dask cluster, or on threads.

        Parameters
        ----------
        path
            The store, ending in ``.zarr``; it has that name only when it is complete.
        resume
            Continue an unfinished store; what is finished is not computed again.
        overwrite
            Replace an existing store.
        **options
            `client`: a Dask client. `listen`: called with the progress after every task. `cleanup`: False
            keeps plan and records.

        Returns
        -------
        pathlib.Path
            The store, for `cryodask.open_result`.

        Raises
        ------
        InputError
            Where the dataset is not as a job returned it, the store exists, or a resumed run differs.
        IncompleteError
            Where tiles failed; call it again with ``resume=True``.
        """
        plan = self._dataset.encoding.get(PLAN)
        if plan is None:
            raise InputError("only a lazy dataset as a job returned it can be stored; use to_zarr for others")
        return plan.store(self._dataset, path, resume=resume, overwrite=overwrite, **options)

    def montage(self) -> "Figure":
        """Draw the classes of a classification side by side, in order of similarity."""
        from cryodask.results.montage import montage

        if "working_average" not in self._dataset:
            raise InputError("montage: expected the result of a classification")
        name = "class_average" if "class_average" in self._dataset else "working_average"
        order = self._dataset["order"].values.argsort()
        labels = [f"{k + 1}: {self._dataset['size'].values[k]}" for k in order]
        return montage(self._dataset[name].values[order], labels)

    def select(self, **conditions: Any) -> pd.DataFrame:
        """Return the particles of chosen classes; conditions are those of `cryodask.select`."""
        from cryodask.results.class_selection import Selection, select_particles

        return select_particles(class_tables(self._dataset), Selection.from_conditions(conditions)).table

    def write_star(
        self, path: str | Path, which: str = "accounted", *, form: str = "", overwrite: bool = False
    ) -> Path:
        """Write the particles of a classification as a STAR file.

        Parameters
        ----------
        path
            The file.
        which
            accounted or unaccounted.
        form
            relion31 or relion30; by default the dialect of the input.
        overwrite
            Replace an existing file.

        Raises
        ------
        InputError
            Not a classification; no such particles; a file that exists.
        """
        from cryodask.results.class_selection import write_class_star

        return write_class_star(path, class_tables(self._dataset), which, form, overwrite=overwrite)

    def to_leopard_em(self) -> dict[str, Any]:
        """Return the maps of a micrograph match under the names of Leopard-EM's core function.

        Returns
        -------
        dict
            Arrays (y, x) and counts: `mip`, `scaled_mip`, `best_phi`, `best_global_index`,
            `correlation_variance` (the standard deviation, as there), ...
        """
        from cryodask.results.leopard_em import leopard_em_maps

        return leopard_em_maps(self._dataset)

    def to_bioem(self, stem: str | Path) -> list[Path]:
        """Write a likelihood of listed orientations as BioEM's Output_Probabilities (and ANG_PROB) files.

        Parameters
        ----------
        stem
            Files are named STEM_STRUCTURE_Output_Probabilities.
        """
        from cryodask.results.bioem import write_bioem

        return write_bioem(self._dataset, stem)

    def write_mrc(self, paths: Mapping[str, str | Path]) -> None:
        """Write maps of a micrograph match as MRC files with pixel size and origin.

        Parameters
        ----------
        paths
            Files by the keys of Leopard-EM's configuration: `mip_path`, `scaled_mip_path`,
            `correlation_average_path`, `correlation_variance_path`, `orientation_psi_path`,
            `orientation_theta_path`, `orientation_phi_path`, `relative_defocus_path`.
        """
        from cryodask.results.leopard_em import write_maps

        write_maps(self._dataset, paths)

    def posterior(self, prior: Any = None) -> xr.Dataset:
        """Return the posterior of structures given each image, and given all images.

        Parameters
        ----------
        prior
            Relative weight of each structure: a sequence, or a mapping of name to weight (1 where not
            named); those of the configuration by default.

        Returns
        -------
        xarray.Dataset
            `posterior` (image, structure), `log_evidence` (structure) in nats, `posterior_all` (structure).
        """
        from cryodask.results.structure_comparison import posterior_of

        return posterior_of(self._dataset, prior)

    def to_relion(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a likelihood's best poses into a copy of the images' STAR file.

        Raises
        ------
        InputError
            No best poses; images that are gone.
        """
        from cryodask.results.likelihood_files import stack_of, write_best_star

        plan = self._dataset.encoding.get(PLAN)
        stack = plan.inputs.stack if plan is not None else stack_of(self._dataset)
        require_new(path, overwrite=overwrite)
        with written_whole(path, overwrite=overwrite) as temporary:
            write_best_star(temporary, self._dataset, stack)

    def to_cryolike(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write a likelihood as CryoLike's tree of .pt files; needs the extra ``torch``.

        Raises
        ------
        InputError
            A result in other axes than CryoLike's; no torch.
        """
        from cryodask.results.cryolike_files import write_cryolike_tree

        write_cryolike_tree(self._dataset, folder, overwrite=overwrite)

    def likelihood(self) -> "Figure":
        """Draw the comparison of structures: difference of each image, cumulative, posterior."""
        from cryodask.results.structure_comparison import comparison_figure

        return comparison_figure(self._dataset)

    def pick(self, **options: Any) -> pd.DataFrame:
        """Return the particle table; options are those of `cryodask.pick`."""
        from cryodask.picking.pick import pick

        return pick(self._dataset, **options)


def open_result(path: str | Path) -> xr.Dataset:
    """Open a stored result lazily.

    Parameters
    ----------
    path
        A ``.zarr`` store written by cryodask, a folder with one named ``result.zarr``, or an address.

    Raises
    ------
    InputError
        Where there is none, or its address is not reached in three tries.
    """
    if is_url(path):
        return _complete(open_dataset(str(path)))
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such result")
    inner = Path(path) / "result.zarr"
    dataset = _complete(xr.open_zarr(inner if inner.is_dir() else path, consolidated=False))
    if dataset.attrs.get("job") == "classify":
        dataset.encoding[CLASSES] = (Path(path) if inner.is_dir() else Path(path).parent).absolute()
    return dataset


def class_tables(dataset: xr.Dataset) -> "ClassTables":
    """Return the tables that belong to the dataset of a classification.

    Raises
    ------
    InputError
        Not a classification, or a dataset derived from one.
    """
    from cryodask.results.class_selection import ClassTables, read_class_tables

    found = dataset.encoding.get(CLASSES)
    if found is None:
        raise InputError("expected the dataset of a classification as classify or open_result returned it")
    return found if isinstance(found, ClassTables) else read_class_tables(found)


def _complete(dataset: xr.Dataset) -> xr.Dataset:
    """Add what is looked up when it is read."""
    if dataset.attrs.get("job") != "match-micrograph":
        return dataset
    from cryodask.results.orientation_maps import with_best_angles

    return with_best_angles(dataset)
