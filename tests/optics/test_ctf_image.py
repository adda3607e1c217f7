"""The CTF of an image against torch-ctf's tables and what its terms mean."""

import math
from dataclasses import replace

import numpy as np
import pytest

from cryodask.optics.ctf import ctf_curve
from cryodask.optics.ctf_image import ImageCtf, ctf_at, ctf_image

OPTICS = ImageCtf(1.06, 5225.0, 4975.0, astigmatism_angle=25.0)


def test_tables_of_torch_ctf(shared_data):
    with np.load(shared_data / "micrograph_matching" / "ctf.npz") as reference:
        for number, offset in enumerate((-600.0, 0.0, 600.0)):
            found = ctf_image((64, 64), OPTICS, defocus_offset=offset)
            np.testing.assert_allclose(found, reference["ctf"][number], atol=1e-4)
        shifted = replace(OPTICS, phase_shift=90.0)
        errors = [
            abs(ctf_image((64, 64), shifted, defocus_offset=d) - reference["ctf_phase90"][0]).max()
            for d in (-600.0, 0.0, 600.0)
        ]
        assert min(errors) < 1e-4
        terms = (("Z44c", 0.1), ("Z60", 0.3), ("Z31c", 0.2), ("Z33s", 0.1))
        errors = [
            abs(
                ctf_image((64, 64), replace(OPTICS, zernikes=terms), defocus_offset=d)
                - reference["ctf_zernike"][0]
            ).max()
            for d in (-600.0, 0.0, 600.0)
        ]
        assert min(errors) < 1e-4
        envelope = ctf_image((64, 64), replace(OPTICS, b_factor=60.0)) / ctf_image((64, 64), OPTICS)
        np.testing.assert_allclose(envelope, reference["b_env"], atol=1e-4)


def test_angle_zero_puts_u_along_x():
    optics = ImageCtf(1.0, 8000.0, 5000.0, astigmatism_angle=0.0)
    k = np.linspace(0, 0.5, 100)
    np.testing.assert_allclose(ctf_at(0.0, k, optics), ctf_curve(k, 8000.0), atol=1e-9)
    np.testing.assert_allclose(ctf_at(k, 0.0, optics), ctf_curve(k, 5000.0), atol=1e-9)


def test_exchanging_u_and_v_turns_by_ninety_degrees():
    swapped = replace(OPTICS, defocus_u=4975.0, defocus_v=5225.0, astigmatism_angle=115.0)
    np.testing.assert_allclose(ctf_image((32, 32), swapped), ctf_image((32, 32), OPTICS), atol=1e-9)


def test_the_function_is_the_amplitude_contrast_at_the_origin():
    assert ctf_at(0.0, 0.0, replace(OPTICS, amplitude_contrast=0.1)) == pytest.approx(0.1)


def test_odd_aberrations_change_the_phase_alone_and_are_odd():
    odd = replace(OPTICS, zernikes=(("Z31c", 0.7), ("Z33s", -0.4)))
    ky, kx = np.meshgrid(np.linspace(-0.4, 0.4, 9), np.linspace(-0.4, 0.4, 9))
    plus, minus = ctf_at(ky, kx, odd), ctf_at(-ky, -kx, odd)
    np.testing.assert_allclose(minus, np.conj(plus), atol=1e-12)
    np.testing.assert_allclose(abs(plus), abs(ctf_at(ky, kx, OPTICS)), atol=1e-12)


def test_magnification_scales_frequencies_by_its_inverse():
    stretched = replace(OPTICS, magnification=(1.02, 0.0, 0.0, 0.99))
    found = ctf_at(0.1, 0.2, stretched)
    assert found == pytest.approx(float(ctf_at(0.1 / 1.02, 0.2 / 0.99, OPTICS)))


def test_a_larger_pixel_is_a_smaller_frequency():
    found = ctf_at(0.1, 0.2, OPTICS, pixel_offset=0.1)
    scale = 1.06 / 1.16
    assert found == pytest.approx(float(ctf_at(0.1 * scale, 0.2 * scale, OPTICS)))
    assert not math.isclose(found, float(ctf_at(0.1, 0.2, OPTICS)), rel_tol=1e-3)
