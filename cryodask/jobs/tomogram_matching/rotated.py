"""The templates and masks of a search, rotated, filtered and normalised."""

from typing import Any

import numpy as np

from cryodask.jobs.tomogram_matching import mirror
from cryodask.jobs.tomogram_matching.constants import Tables
from cryodask.jobs.tomogram_matching.seeding import NearSeeds, TileSeeds
from cryodask.kernels.rotation import Interpolation, rotate_mask
from cryodask.kernels.template import Normalization, normalization_mask, prepare_rotation
from cryodask.kernels.tile_state import Restriction


class RotatedTemplates:
    """Rotated templates and masks of a task, on its device.

    Parameters
    ----------
    tables
        Of the template, with the filter of one cell.
    interpolation, normalization
        Of the search.
    xp
        Array module of the device.
    near, seeds
        Which rotations score which voxels; None for all.
    """

    def __init__(
        self,
        tables: Tables,
        interpolation: Interpolation,
        normalization: Normalization,
        xp: Any,
        near: NearSeeds | None = None,
        seeds: TileSeeds | None = None,
    ) -> None:
        self.tables, self.xp, self.near, self.seeds = tables, xp, near, seeds
        self.label = None if seeds is None else xp.asarray(seeds.label)
        self.interpolation, self.normalization = interpolation, normalization
        self.coefficients = [xp.asarray(template) for template in tables.templates]
        self.mask_coefficients = xp.asarray(tables.mask_coefficients)
        self.filter = None if tables.template_filters is None else xp.asarray(tables.template_filters[0])

    def fixed_mask(self) -> Any:
        """Return the mask of every rotation, for one that does not change under rotation."""
        return normalization_mask(self.xp.asarray(self.tables.mask), self.normalization)

    def mask(self, row: int, *, mirrored: bool = False) -> Any:
        """Return the mask, or that of the mirrored template, in the frame of one rotation."""
        mask = mirror.mirrored(self.mask_coefficients) if mirrored else self.mask_coefficients
        rotated = rotate_mask(mask, self.tables.matrices[row])
        return normalization_mask(rotated, self.normalization)

    def direction_mask(self, row: int) -> Any:
        """Return the mask of the first row of a row's viewing direction, for masks symmetric about z."""
        return self.mask(int(np.argmax(self.tables.directions == self.tables.directions[row])))

    def restriction(self, rows: np.ndarray) -> Restriction | None:
        """Return which voxels some rows score; none where all do."""
        if self.near is None or self.seeds is None:
            return None
        allowed = self.near.allowed(self.tables.matrices[rows], self.seeds.matrices)
        nowhere = np.zeros((len(rows), 1), bool)
        return Restriction(self.label, np.concatenate([nowhere, allowed], axis=1))

    def templates(self, copy: int, rows: np.ndarray, masks: list[Any]) -> tuple[Any, np.ndarray]:
        """Return the normalised templates (row, z, y, x) and their mask sums (row,)."""
        made = [
            prepare_rotation(
                self.coefficients[copy],
                mask,
                self.tables.matrices[row],
                interpolation=self.interpolation,
                filter_half=self.filter,
                normalization=self.normalization,
            )
            for row, mask in zip(rows, masks, strict=True)
        ]
        counts = np.array([float(count) for _, count in made])
        return self.xp.stack([template for template, _ in made]), counts
