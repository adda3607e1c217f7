"""Phantoms with known truth, for the demo, the tests and the benchmarks."""

from cryodask.simulate.micrograph import SimulatedMicrograph, simulate_micrograph
from cryodask.simulate.scene import Vesicle
from cryodask.simulate.shapes import make_structure, simulate_structure
from cryodask.simulate.stack import SimulatedStack, simulate_stack
from cryodask.simulate.structure import DensityMap, GaussianStructure
from cryodask.simulate.tomogram import SimulatedTomogram, simulate_tomogram

__all__ = [
    "DensityMap",
    "GaussianStructure",
    "SimulatedMicrograph",
    "SimulatedStack",
    "SimulatedTomogram",
    "Vesicle",
    "make_structure",
    "simulate_micrograph",
    "simulate_stack",
    "simulate_structure",
    "simulate_tomogram",
]
