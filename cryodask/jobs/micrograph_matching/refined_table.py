"""From the arrays of a search around particles to the columns of Leopard-EM."""

from typing import Any

import numpy as np
import pandas as pd

from cryodask.io.leopard_em import POSE


def refined_table(table: pd.DataFrame, arrays: dict[str, np.ndarray], edge: int) -> pd.DataFrame:
    """Return a table with the refined columns, its rows in the order they were.

    Parameters
    ----------
    table
        The particles, P rows.
    arrays
        (P,) arrays of `pose_problem.FIELDS`.
    edge
        Of the template, pixels: a particle's centre lies n//2 from its position.

    Returns
    -------
    pandas.DataFrame
        Positions stay whole pixels, as Leopard-EM reads them; subpixel_x and subpixel_y hold the rest, which
        the columns in angstrom include.
    """
    pixel_size = table["pixel_size"].to_numpy(float)
    columns: dict[str, Any] = {
        "refined_mip": arrays["cc"],
        "refined_scaled_mip": arrays["z"],
        **{f"refined_{name}": arrays[name] for name in POSE},
        "refined_relative_defocus": arrays["defocus"],
        "refined_pixel_size": arrays["pixel_size"],
    }
    for axis in "xy":
        place, rest = arrays[axis], arrays[f"sub_{axis}"]
        columns |= {
            f"refined_pos_{axis}": _whole(place),
            f"refined_pos_{axis}_img": _whole(place + edge // 2),
            f"refined_pos_{axis}_img_angstrom": (place + edge // 2 + rest) * pixel_size,
            f"subpixel_{axis}": rest,
        }
    return table.assign(**columns)


def _whole(values: np.ndarray) -> pd.Series:
    """Return whole numbers, written without a decimal point; NaN stays."""
    return pd.Series(values).round().astype("Int64").set_axis(range(len(values)))
