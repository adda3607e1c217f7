import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.optics.tilts import TiltSeries


def test_columns_of_another_length_are_counted():
    with pytest.raises(InputError, match=r"^41 defocus values for 60 tilts$"):
        TiltSeries(np.linspace(-60, 60, 60), defocus=np.full(41, 3e4))


def test_a_range_has_two_finite_limits():
    with pytest.raises(InputError, match="3 tilt limits: expected 2"):
        TiltSeries([-60, 0, 60], is_range=True)
    with pytest.raises(InputError, match="tilt angles: expected finite numbers"):
        TiltSeries([-60, np.nan])


def test_turning_the_sign_keeps_each_tilt_with_its_optics():
    turned = TiltSeries([-50, 0, 60], exposure=[9, 3, 6]).with_sign(-1)
    assert turned.angle_range == (-60, 50)
    np.testing.assert_array_equal(turned.exposure[turned.angles == 50], [9])
