"""Particles between RELION 3.0 (one table, origins in pixels) and 3.1 to 5 (optics groups, angstrom)."""

import pandas as pd

from cryodask.io.relion_stack import GROUP, PIXEL_SIZE

OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
MAGNIFIED = ("rlnDetectorPixelSize", "rlnMagnification")
AXES = ("X", "Y")


def as_relion31(blocks: dict[str, pd.DataFrame], block: str, pixel_size: float) -> dict[str, pd.DataFrame]:
    """Return blocks with an optics table, origins in angstrom.

    Parameters
    ----------
    blocks
        Of a particle STAR file of either dialect.
    block
        Which holds the particles.
    pixel_size : angstrom
        Of the images.
    """
    if "optics" in blocks:
        return blocks
    table = blocks[block].copy()
    for axis in AXES:
        if f"rlnOrigin{axis}" in table:
            pixels = table.pop(f"rlnOrigin{axis}")
            table[f"rlnOrigin{axis}Angst"] = pixels * pixel_size
    shared = [name for name in OPTICS if name in table]
    table = table.drop(columns=[name for name in MAGNIFIED if name in table])
    keys = table[shared].drop_duplicates().reset_index(drop=True)
    optics = keys if len(shared) else pd.DataFrame(index=range(1))
    number = pd.Series(1, index=table.index)
    if shared and len(table):
        number = (
            table[shared].apply(tuple, axis=1).map({tuple(k): i + 1 for i, k in enumerate(keys.to_numpy())})
        )
    optics.insert(0, GROUP, range(1, len(optics) + 1))
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{i}" for i in optics[GROUP]])
    optics[PIXEL_SIZE] = pixel_size
    optics["rlnImageDimensionality"] = 2
    table = table.drop(columns=[*shared, PIXEL_SIZE], errors="ignore")
    table[GROUP] = number
    others = {name: each for name, each in blocks.items() if name != block}
    return {"optics": optics, "particles": table, **others}


def as_relion30(blocks: dict[str, pd.DataFrame], block: str, pixel_size: float) -> dict[str, pd.DataFrame]:
    """Return one table with the columns of its optics groups, origins in pixels; see `as_relion31`."""
    if "optics" not in blocks:
        return blocks
    table, optics = blocks[block].copy(), blocks["optics"].set_index(GROUP)
    for axis in AXES:
        if f"rlnOrigin{axis}Angst" in table:
            angstrom = table.pop(f"rlnOrigin{axis}Angst")
            table[f"rlnOrigin{axis}"] = angstrom / pixel_size
    group = table.pop(GROUP) if GROUP in table else pd.Series(optics.index[0], index=table.index)
    for name in OPTICS:
        if name in optics and name not in table:
            table[name] = group.map(optics[name])
    table["rlnDetectorPixelSize"] = pixel_size  # micrometres, at a magnification of 10,000
    table["rlnMagnification"] = 1e4
    return {"": table}
