"""What is known of a tilt series: the angles, and the optics of each tilt."""

from dataclasses import dataclass, replace

import numpy as np

from cryodask.errors import InputError

_PER_TILT = ("exposure", "defocus", "phase_shift")


@dataclass(frozen=True, eq=False)
class TiltSeries:
    """A tilt series about y; arrays hold one value a tilt, in the order of `angles`.

    Parameters
    ----------
    angles
        (T,) degrees; only (least, greatest) with `is_range`.
    exposure
        (T,) dose accumulated by the end of each tilt, electrons per square angstrom.
    defocus
        (T,) mean defocus, angstrom, positive for underfocus.
    phase_shift
        (T,) degrees; 0 when None.
    voltage
        kV.
    amplitude_contrast
        Fraction, 0 to 1.
    cs
        Spherical aberration, mm.
    pixel_size
        Unbinned, angstrom.
    tomogram_shape
        (z, y, x) of the unbinned tomogram, pixels.
    is_range
        Whether only the least and the greatest angle are known.
    z_shift
        Shift of the reconstruction along z, unbinned pixels.
    voxel_size
        Of the tomogram, angstrom, where the metadata give it.
    defocus_hand
        1 or -1: the sign of the defocus gradient across the tomogram, where the metadata give it.

    Raises
    ------
    InputError
        A column does not have one finite value a tilt; a hand other than 1 and -1.
    """

    angles: np.ndarray
    exposure: np.ndarray | None = None
    defocus: np.ndarray | None = None
    phase_shift: np.ndarray | None = None
    voltage: float = 300.0
    amplitude_contrast: float = 0.07
    cs: float = 2.7
    pixel_size: float | None = None
    tomogram_shape: tuple[int, int, int] | None = None
    is_range: bool = False
    z_shift: float = 0.0
    voxel_size: float | None = None
    defocus_hand: int | None = None

    def __post_init__(self) -> None:
        for name in ("angles", *_PER_TILT):
            values = getattr(self, name)
            if values is not None:
                # the frozen class still has to hold its lists as arrays
                object.__setattr__(self, name, np.atleast_1d(np.asarray(values, dtype=np.float64)))
        if not np.isfinite(self.angles).all():
            raise InputError("tilt angles: expected finite numbers")
        if self.is_range and len(self.angles) != 2:
            raise InputError(f"{len(self.angles)} tilt limits: expected 2, the least and the greatest")
        for name in _PER_TILT:
            values = getattr(self, name)
            if values is not None and values.shape != self.angles.shape:
                label = name.replace("_", " ")
                raise InputError(f"{len(values)} {label} values for {len(self.angles)} tilts")
            if values is not None and not np.isfinite(values).all():
                raise InputError(f"{name.replace('_', ' ')}: expected finite numbers")
        if self.defocus_hand not in (None, 1, -1):
            raise InputError(f"defocus hand {self.defocus_hand}, expected 1 or -1")

    @property
    def angle_range(self) -> tuple[float, float]:
        """Least and greatest tilt angle, degrees."""
        return float(self.angles.min()), float(self.angles.max())

    def with_sign(self, sign: int) -> "TiltSeries":
        """Return the series with every angle times `sign` (1 or -1), each tilt keeping its optics."""
        return replace(self, angles=sign * self.angles)
