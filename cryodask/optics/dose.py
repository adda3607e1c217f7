"""How radiation damage fades the signal of a tilt."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

# voltages below this need a smaller critical dose (Grant & Grigorieff 2015)
_HIGH_VOLTAGE = 250.0
_LOW_VOLTAGE_FACTOR = 0.8


@dataclass(frozen=True)
class DoseFilter:
    """The exposure filter of a search.

    Parameters
    ----------
    model
        ``grant``: critical dose after Grant & Grigorieff (2015); ``bfactor``: a B-factor of 4 angstrom^2 for
        every electron per square angstrom.
    critical_dose
        The numbers a, b, c of the critical dose a f^b + c of ``grant``.
    scale_with_voltage
        Whether the critical dose is a fifth less below 250 kV.
    """

    model: Literal["grant", "bfactor"] = "grant"
    critical_dose: tuple[float, float, float] = (0.245, -1.665, 2.81)
    scale_with_voltage: bool = True

    def curve(self, frequency: np.ndarray, dose: float, voltage: float = 300.0) -> np.ndarray:
        """Return the amplitude left at frequencies.

        Parameters
        ----------
        frequency
            Any shape, 1/angstrom.
        dose
            Accumulated by the end of the tilt, electrons per square angstrom.
        voltage
            kV.
        """
        f = np.asarray(frequency, dtype=np.float64)
        if self.model == "bfactor":
            return np.exp(-dose * f**2)
        a, b, c = self.critical_dose
        with np.errstate(divide="ignore"):
            critical = a * f**b + c
        if self.scale_with_voltage and voltage < _HIGH_VOLTAGE:
            critical = critical * _LOW_VOLTAGE_FACTOR
        return np.exp(-dose / (2.0 * critical))
