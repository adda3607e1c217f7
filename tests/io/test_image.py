"""Images go out as MRC and come back, and stacks are refused."""

import mrcfile
import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.image import read_image, read_image_header, write_image


def test_an_image_comes_back_with_its_pixel_size_origin_and_label(tmp_path):
    image, place = np.random.default_rng(0).standard_normal((7, 12)).astype(np.float32), (67.84, 33.92)
    write_image(tmp_path / "std.mrc", image, pixel_size=1.06, origin=place, label="standard deviation")
    np.testing.assert_array_equal(read_image(tmp_path / "std.mrc"), image)
    header = read_image_header(tmp_path / "std.mrc")
    assert header.voxel_size == pytest.approx(1.06)
    assert header.origin[1:] == pytest.approx(place, rel=1e-5)
    with mrcfile.open(tmp_path / "std.mrc") as file:
        assert file.data.shape == (7, 12) and file.header.mode == 2
        assert any("standard deviation" in label for label in file.get_labels())
    assert mrcfile.validate(tmp_path / "std.mrc")


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "f2", "f4"])
def test_every_real_mode_is_read(tmp_path, dtype):
    values = np.arange(20).reshape(4, 5).astype(dtype)
    with mrcfile.new(tmp_path / "a.mrc", values):
        pass
    np.testing.assert_array_equal(read_image(tmp_path / "a.mrc"), values)


def test_several_sections_are_refused(tmp_path):
    with mrcfile.new(tmp_path / "stack.mrc", np.zeros((3, 4, 5), np.float32)):
        pass
    with pytest.raises(InputError, match=r"stack.mrc: 3 sections of 4 x 5, expected 2-D"):
        read_image(tmp_path / "stack.mrc")
