"""Warp XML: the sense of its angles, what is used, and its grids."""

import numpy as np
import pytest

from cryodask.errors import InputError
from cryodask.io.tilts import read_tilts

CTF = '<CTF><Param Name="Voltage" Value="200"/><Param Name="Cs" Value="0"/></CTF>'


def grid(name, values, width=1):
    nodes = [
        f'<Node X="{x}" Y="0" Z="{z}" Value="{value + x - (width - 1) / 2}"/>'
        for z, value in enumerate(values)
        for x in range(width)
    ]
    return f'<{name} Width="{width}" Height="1" Depth="{len(values)}">{"".join(nodes)}</{name}>'


def series(content, attributes=""):
    return f'<?xml version="1.0" encoding="utf-16"?>\n<TiltSeries {attributes}>{content}</TiltSeries>'


def test_warptools_series_in_utf_8(shared_data):
    path = shared_data / "tomogram_matching/relion5_project/warptools_xml_example/gs04_ts_003.xml"
    tilts = read_tilts(path)
    assert len(tilts.angles) == 47
    assert tilts.angle_range == (-46, 45.99)
    assert (tilts.angles[0], tilts.exposure[0]) == (-46, 140.97852)
    assert tilts.defocus[0] == pytest.approx(51625.71)
    assert (tilts.voltage, tilts.cs, tilts.amplitude_contrast) == (300, 2.7, 0.1)
    assert (tilts.pixel_size, tilts.defocus_hand) == (0.7303, -1)


def test_warp_series_in_utf_16(shared_data):
    tilts = read_tilts(shared_data / "tomogram_matching/tilt_metadata/TS_018/018.xml")
    assert len(tilts.angles) == 60
    assert tilts.angle_range == (-69, 54)
    assert tilts.defocus[0] == pytest.approx(34098.15)
    assert not tilts.phase_shift.any()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unused_tilts_leave_with_their_optics(tmp_path, encoding):
    text = series(
        "<Angles>2\n0\n-2</Angles><Dose>3\n1\n5</Dose><UseTilt>True\nFalse\nTrue</UseTilt>"
        + CTF
        + grid("GridCTF", [3, 9, 4], width=3)
        + grid("GridCTFPhase", [0.5, 0.1, 0.25]),
        'AreAnglesInverted="True"',
    )
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    tilts = read_tilts(tmp_path / "a.xml")
    assert tilts.angles.tolist() == [-2, 2]
    assert tilts.exposure.tolist() == [3, 5]
    np.testing.assert_allclose(tilts.defocus, [30000, 40000])
    np.testing.assert_allclose(tilts.phase_shift, [90, 45])
    assert (tilts.voltage, tilts.cs, tilts.amplitude_contrast) == (200, 0, 0.07)
    assert (tilts.pixel_size, tilts.defocus_hand) == (None, 1)


def test_a_series_before_its_ctf_fit_has_no_defocus(tmp_path):
    content = "<Angles>2\n0</Angles><Dose>0\n0</Dose>" + grid("GridCTF", [0]) + grid("GridCTFPhase", [0])
    (tmp_path / "a.xml").write_text(series(content))
    tilts = read_tilts(tmp_path / "a.xml")
    assert tilts.defocus is None and tilts.phase_shift is None and tilts.exposure is None
    (tmp_path / "a.xml").write_text(series("<Angles>2\n0</Angles>" + grid("GridCTF", [3])))
    assert read_tilts(tmp_path / "a.xml").defocus.tolist() == [30000, 30000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<TiltSeries>", r"a.xml: no readable XML \("),
        ("<Movie/>", r"a.xml: XML of Movie, expected TiltSeries"),
        (series(""), r"a.xml: no Angles"),
        (series("<Angles>1 x</Angles>"), r"a.xml: Angles = x, expected a number"),
        (series("<Angles>1</Angles>"), r"a.xml: 1 tilt, expected 2 or more"),
        (series("<Angles>1 2</Angles><Dose>1</Dose>"), r"a.xml: 1 dose values for 2 tilts"),
        (series("<Angles>1 2</Angles><UseTilt>True</UseTilt>"), r"a.xml: 1 UseTilt values for 2 tilts"),
        (
            series("<Angles>1 2</Angles><UseTilt>True 3</UseTilt>"),
            r"a.xml: UseTilt = 3, expected True or False",
        ),
        (
            series("<Angles>1 2 3</Angles>" + grid("GridCTF", [3, 4])),
            r"a.xml: 2 defocus values for 3 tilts \(GridCTF\)",
        ),
        (
            series('<Angles>1 2</Angles><CTF><Param Name="Cs" Value="x"/></CTF>'),
            r"a.xml: CTF Cs = x, expected a number",
        ),
    ],
)
def test_wrong_series_are_named(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_tilts(tmp_path / "a.xml")
