"""The mirrored template beside the target: a search of its own, and templates that have no handedness."""

import re

import numpy as np
import pytest

import cryodask as cd
from cryodask.errors import InputError
from cryodask.io.volume import write_volume
from cryodask.jobs.tomogram_matching.mirror import mirror_likeness, mirrored
from cryodask.jobs.tomogram_matching.particle import Particle
from cryodask.kernels.rotation import rotate, rotation_coefficients
from cryodask.optics.bandpass import BandPass

from .conftest import VOXEL, ball, blob


def handed(edge=12):
    """A screw of five blobs: no rotation makes it its mirror image."""
    spots = [(-3, 3, 0), (-1, 0, 3), (1, -3, 0), (3, 0, -3), (2, 3, 1)]
    return sum(blob((edge,) * 3, (1, 1, 1), at, 1.1) * (1 + 0.2 * i) for i, at in enumerate(spots))


@pytest.mark.parametrize("edge", [12, 13])
def test_a_voxel_goes_to_the_other_side_of_the_centre(edge):
    volume = np.zeros((edge,) * 3, np.float32)
    middle = edge // 2
    volume[2, 3, middle + 4] = 1
    image = mirrored(volume)
    assert image[2, 3, middle - 4] == 1
    assert image.sum() == 1
    np.testing.assert_array_equal(mirrored(image), volume)


def lopsided(edge=12):
    """A mask that is no sphere."""
    return np.minimum(ball((edge,) * 3, 4), np.roll(ball((edge,) * 3, 4.5), (0, 1, 1), (0, 1, 2)))


@pytest.mark.parametrize("kind", ["spherical", "general"])
@pytest.mark.parametrize("correction", ["none", "ratio"])
def test_the_decoy_is_the_search_with_the_mirrored_template_and_mask(job, tmp_path, kind, correction):
    mask = ball((12,) * 3, 4) if kind == "spherical" else lopsided()
    common = {
        "angles": {"step": 60, "method": "rings"},
        "statistics_grid": "exact",
        "noise_correction": correction,
        "interpolation": "linear",
    }
    both = cd.match_tomogram(job(template=handed(), mask=mask, decoy="mirror", **common)).compute()
    for name, volume in (("image", handed()), ("image_mask", mask)):
        write_volume(tmp_path / f"{name}.mrc", np.ascontiguousarray(mirrored(volume)), voxel_size=VOXEL)
    names = {"template": "image.mrc", "mask": "image_mask.mrc"}
    image = cd.match_tomogram(job(**(common | names))).compute()
    plain = cd.match_tomogram(job(template=handed(), mask=mask, **common)).compute()
    np.testing.assert_allclose(both.decoy, image.score_raw, atol=2e-5)
    for name in ("score_raw", "score", "score_mean", "orientation"):
        np.testing.assert_array_equal(both[name], plain[name], err_msg=name)
    assert "decoy" not in plain
    assert both.decoy.dtype == np.float32


def test_without_noise_copies_only_the_image_is_beside_the_template(job):
    from cryodask.jobs.tomogram_matching.inputs import load_inputs
    from cryodask.jobs.tomogram_matching.planning import Resources, make_problem, rough_seconds

    alone, decoyed = (
        make_problem(load_inputs(job(template=handed(), decoy=decoy)), ".", Resources())
        for decoy in ("none", "mirror")
    )
    assert rough_seconds(decoyed, (32, 32, 32)) == 2 * rough_seconds(alone, (32, 32, 32))


def test_a_template_that_is_its_own_mirror_image_is_refused(job):
    with pytest.raises(InputError) as caught:
        cd.match_tomogram(job(decoy="mirror"))  # a lopsided Gaussian has a plane of symmetry
    expected = (
        r"decoy = mirror: template correlates (1\.00|0\.99) with its mirror image in the band of the search"
    )
    assert re.match(expected + r", expected 0\.95 or less$", str(caught.value))


def test_likeness_follows_the_band_and_not_the_pose():
    mask = ball((24,) * 3, 9)
    volume = handed(24)
    matrix = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    turned = rotate(rotation_coefficients(volume, "cubic"), matrix, "cubic")
    sharp = mirror_likeness(Particle(volume, mask, 24), None, "C1")
    assert 0.2 < sharp < 0.9
    assert mirror_likeness(Particle(turned, mask, 24), None, "C1") == pytest.approx(sharp, abs=0.03)
    assert mirror_likeness(Particle(volume, mask, 24), BandPass(lp_rad=2.0, lp_sigma=0.5), "C1") > sharp
