"""Structures are reproducible, turn about their centre, have the symmetry they claim and differ."""

import numpy as np
import pytest
from scipy.ndimage import affine_transform
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from cryodask.errors import InputError
from cryodask.geometry.symmetry import symmetry_group
from cryodask.simulate import DensityMap, GaussianStructure, make_structure, simulate_structure

VOXEL = 8.0
BOX = 44


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def turned(volume, rotation):
    """t_R(v) = t(R^T v) about voxel n//2, written in array order."""
    inverse = rotation.as_matrix().T[::-1, ::-1]
    centre = np.array(volume.shape) // 2
    return affine_transform(volume.astype(float), inverse, centre - inverse @ centre, order=3)


def test_same_seed_same_map_and_another_seed_another_map():
    first = simulate_structure("ribosome", VOXEL, BOX, seed=3)
    np.testing.assert_array_equal(first, simulate_structure("ribosome", VOXEL, BOX, seed=3))
    assert correlation(first, simulate_structure("ribosome", VOXEL, BOX, seed=4)) < 0.995


def test_beads_of_the_ribosome_do_not_overlap_and_leave_the_channel_free():
    ribosome = make_structure("ribosome")
    assert pdist(ribosome.centres).min() > 10
    assert 250 < ribosome.diameter < 320
    assert np.allclose(np.average(ribosome.centres, axis=0, weights=ribosome.weights), 0, atol=1e-9)


@pytest.mark.parametrize("element", range(1, 14))
def test_proteasome_has_the_symmetry_it_claims(element):
    particle = make_structure("proteasome")
    group = symmetry_group(particle.symmetry)
    centre, shape = np.full(3, 16), (32, 32, 32)
    plain = particle.density(shape, VOXEL, Rotation.identity(), centre)
    np.testing.assert_allclose(particle.density(shape, VOXEL, group[element], centre), plain, atol=1e-4)


def test_no_rotation_carries_the_ribosome_into_itself():
    ribosome = make_structure("ribosome")
    centre, shape = np.full(3, 20), (40, 40, 40)
    plain = ribosome.density(shape, VOXEL, Rotation.identity(), centre)
    for rotation in Rotation.random(40, random_state=np.random.default_rng(1)):
        if rotation.magnitude() > np.radians(40):
            assert correlation(ribosome.density(shape, VOXEL, rotation, centre), plain) < 0.9


@pytest.mark.parametrize("box", [44, 45])
def test_drawn_rotation_is_active_about_voxel_half_the_box(box):
    rotation = Rotation.from_euler("zxz", [30, 40, 50], degrees=True)
    ribosome = make_structure("ribosome")
    drawn = ribosome.density((box,) * 3, VOXEL, rotation, np.full(3, box // 2))
    assert correlation(drawn, turned(simulate_structure("ribosome", VOXEL, box), rotation)) > 0.999


def test_a_single_bead_lands_where_the_rotation_sends_it():
    bead = GaussianStructure(np.array([[30.0, 50.0, 20.0]]), np.array([8.0]), np.ones(1))
    rotation = Rotation.from_euler("zxz", [30, 40, 50], degrees=True)
    volume = bead.density((41, 43, 45), 5.0, rotation, np.array([22.25, 21.5, 20.0]))
    expected = rotation.apply([6, 10, 4]) + np.array([22.25, 21.5, 20.0])
    z, y, x = np.indices(volume.shape)
    found = [np.average(axis, weights=volume) for axis in (x, y, z)]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_projection_is_the_sum_of_the_volume():
    ribosome = make_structure("ribosome")
    rotation = Rotation.from_euler("zxz", [10, 70, 20], degrees=True)
    volume = ribosome.density((60, 48, 50), VOXEL, rotation, np.array([25.3, 23.6, 30.0]))
    image = ribosome.projection((48, 50), VOXEL, rotation, np.array([25.3, 23.6]))
    np.testing.assert_allclose(image, volume.sum(axis=0), atol=2e-3 * image.max())


def test_a_map_is_drawn_as_the_structure_it_was_made_of():
    particle = make_structure("proteasome")
    given = DensityMap(simulate_structure("proteasome", VOXEL, 32), VOXEL, "D7")
    rotation, centre = Rotation.from_euler("zxz", [5, 60, 80], degrees=True), np.array([17.4, 16.0, 15.7])
    drawn = given.density((34, 32, 36), VOXEL, rotation, centre)
    assert correlation(drawn, particle.density((34, 32, 36), VOXEL, rotation, centre)) > 0.999
    assert (
        correlation(
            given.projection((36, 36), VOXEL, rotation, centre[:2]),
            particle.projection((36, 36), VOXEL, rotation, centre[:2]),
        )
        > 0.999
    )


def test_unknown_kind_names_the_known_ones():
    with pytest.raises(InputError, match="kind = virus: expected ribosome or proteasome"):
        make_structure("virus")


def test_a_map_is_drawn_only_at_its_own_voxel_size():
    given = DensityMap(np.zeros((8, 8, 8)), 10.0)
    with pytest.raises(InputError, match="voxel_size = 8: this map has 10 angstrom"):
        given.density((8, 8, 8), 8.0, Rotation.identity(), np.zeros(3))
