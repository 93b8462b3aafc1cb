"""Deployable formats against the code of those who serve them: ggml's own quantizers, ml_dtypes, and drawn weights."""

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

import replicajax as rj

f = rj.formats

LAWS = {
    "normal": (f.Normal(), lambda rng, shape: rng.normal(size=shape)),
    "laplace": (f.Laplace(), lambda rng, shape: rng.laplace(size=shape) / 2**0.5),
    "t5": (f.StudentT(5.0), lambda rng, shape: rng.standard_t(5, size=shape) / (5 / 3) ** 0.5),
}
OF_GGML = [each.name for each in f.menu("gguf") if each.name != "F16"]
SHARED = ("FP8_E4M3", "FP8_E5M2", "INT8_CHANNEL")


def _z(name: str, law_name: str, draws: int) -> float:
    """Theory less what drawn weights lose, in standard errors."""
    law, draw = LAWS[law_name]
    rng, lost, squares = np.random.default_rng(1), [], []
    for _ in range(-(-draws // 2**20)):
        x = draw(rng, (2**12, 256)).astype(np.float32)
        lost.append(((f.quantize(x, f.standard(name)).dequantize() - x).astype(float) ** 2).mean(1))
        squares.append((x.astype(float) ** 2).mean(1))
    e, square = np.concatenate(lost), np.concatenate(squares)
    found = float(f.relative_rms_error(law, f.standard(name))) ** 2
    off = e - found * square
    return float(off.mean() / (off.std() / off.size**0.5))


@pytest.mark.parametrize(
    ("name", "law"), [("MXFP4", "laplace"), ("Q4_1", "t5"), ("INT4_G32_ZERO", "normal"), ("BF16", "t5")]
)
def test_errors_are_those_of_drawn_weights(name, law):
    assert abs(_z(name, law, 2**21)) < 3.5


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "name", [*(x.name for x in f.menu("all") if not x.name.startswith(SHARED)), "NF4_SPARSE", "INT3_G128_SPARSE"]
)
def test_errors_are_those_of_ten_million_weights(name, law):
    assert abs(_z(name, law, 10**7)) < 3


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["FP8_E4M3", "FP8_E5M2", "INT8"])
def test_errors_of_scales_of_rows_and_tensors(name, law):
    """Ten million weights in rows of 1024; a tensor is one long row."""
    rows, (known, draw) = f.standard(f"{name}_CHANNEL").rounding, LAWS[law]
    rng, lost, squares = np.random.default_rng(1), [], []
    for _ in range(10):
        x = draw(rng, (2**10, 2**10)).astype(np.float32)
        found = f.quantize(x, rows).dequantize()
        if name != "INT8":
            one = f.quantize(x[:1], f.standard(name)).dequantize()
            np.testing.assert_array_equal(one, found[:1])
        lost.append(((found - x).astype(float) ** 2).mean(1))
        squares.append((x.astype(float) ** 2).mean(1))
    error = f.relative_rms_error(known, f.BlockFormat(rows.codebook, 1024, "absmax", "fp32"))
    off = np.concatenate(lost) - float(error) ** 2 * np.concatenate(squares)
    assert abs(off.mean()) < 3 * off.std() / off.size**0.5


@pytest.mark.parametrize("name", OF_GGML)
def test_codes_are_those_of_ggml(name):
    rng = np.random.default_rng(2)
    x = np.concatenate([0.02 * rng.normal(size=(64, 4096)), rng.standard_t(3, size=(64, 4096))]).astype(np.float32)
    x[3, :256] = 0.0
    kind = GGMLQuantizationType[name]
    theirs = quants.quantize(x, kind)
    ours = f.quantize(x, f.standard(name)).dequantize()
    # What differs lies within a rounding error of a threshold.
    assert np.mean(quants.dequantize(theirs, kind).reshape(x.shape) == ours) > 0.9999
    assert f.standard(name).bits == theirs.nbytes * 8 / x.size


@pytest.mark.parametrize(
    ("name", "dtype", "largest"), [("FP8_E4M3", "float8_e4m3fn", 448), ("FP8_E5M2", "float8_e5m2", 57344)]
)
def test_floats_of_eight_bits_are_those_of_ml_dtypes(name, dtype, largest):
    x = np.random.default_rng(3).normal(size=(256, 256)).astype(np.float32)
    scale = np.float32(np.abs(x).max() / largest)
    theirs = (x / scale).astype(getattr(ml_dtypes, dtype)).astype(np.float32) * scale
    ours = f.quantize(x, f.standard(name)).dequantize()
    assert np.mean(np.isclose(ours, theirs, rtol=1e-6, atol=0)) > 0.9999
    of_rows = f.quantize(x, f.standard(f"{name}_CHANNEL"))
    assert isinstance(of_rows, f.QuantizedTensor)
    assert of_rows.scales.shape == (256,)
    np.testing.assert_allclose(np.abs(of_rows.dequantize()).max(1), np.abs(x).max(1), rtol=1e-6)


@pytest.mark.parametrize("name", ["Q5_0", "Q8_0"])
def test_codes_chosen_before_scales_are_stored(name):
    """What that costs beyond codes that know the stored scale, on the same weights, where all else cancels."""
    x = np.random.default_rng(6).normal(size=(2**13, 256)).astype(np.float32)
    before = f.standard(name).rounding
    assert isinstance(before, f.BlockFormat)
    after = f.BlockFormat(before.codebook, before.block_size, before.scaling, before.scale_format)
    lost = [((f.quantize(x, fmt).dequantize() - x).astype(float) ** 2).mean() for fmt in (before, after)]
    error = [float(f.relative_rms_error(f.Normal(), fmt)) ** 2 for fmt in (before, after)]
    assert lost[0] - lost[1] == pytest.approx(error[0] - error[1], rel=0.1)


def test_scale_of_microscaling_is_that_of_the_standard():
    """OCP 6.3: 2^floor(log2 of the largest) over the largest power of two of the elements, which clips what is above."""
    x = np.zeros((1, 32), np.float32)
    x[0, :4] = [7.99, -3.1, 0.4, 1.0]
    for name, largest in (("MXFP4", 6.0), ("MXFP6_E2M3", 7.5), ("MXFP8_E4M3", 7.0), ("MXINT8", 4 * 127 / 64)):
        found = f.quantize(x, f.standard(name))
        assert isinstance(found, f.QuantizedTensor)
        assert found.dequantize()[0, 0] == pytest.approx(largest)
        assert (
            float(np.log2(found.scales[0].astype(float)))
            == {"MXFP4": 0, "MXFP6_E2M3": 0, "MXFP8_E4M3": -6, "MXINT8": -4}[name]
        )


def test_multiplier_of_a_rounded_scale_is_inside_the_rounding():
    """Drawn weights, at a multiplier that is no power of two."""
    x = np.random.default_rng(4).normal(size=(2**15, 32)).astype(np.float32)
    for scale_format in ("e8m0", "e8m0_down", "e4m3"):
        fmt = f.BlockFormat(f.floating_point(2, 1), 32, "absmax", scale_format, 1.3)
        lost = ((f.quantize(x, fmt).dequantize() - x).astype(float) ** 2).mean(1)
        off = lost.mean() - float(f.relative_rms_error(f.Normal(), fmt)) ** 2
        assert abs(off) < 4 * lost.std() / len(lost) ** 0.5, scale_format


def test_ranges_with_a_zero_have_it():
    x = np.abs(np.random.default_rng(5).normal(size=(8, 64))).astype(np.float32) + 1
    x[0, 0] = 0.0
    found = f.quantize(x, f.RangeFormat(4, 64, "fp16", "integer"))
    assert found.dequantize()[0, 0] == 0
    assert (found.offsets == 0).all()  # all positive: 0 is the least
    assert found.bits_per_weight == f.standard("INT4_G64_ZERO").bits
    np.testing.assert_allclose(found.dequantize(), x, atol=x.max() / 15 / 2 * 1.001)


def test_menus_and_names():
    assert {x.name for x in f.menu("gguf")} >= {
        "Q4_0",
        "Q4_1",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "MXFP4",
        "TQ1_0",
        "TQ2_0",
        "BF16",
    }
    assert [f.standard(name).bits for name in ("nvfp4", "mxint8", "nf4")] == [4.5, 8.25, 4.25]
    assert [x.name for x in f.menu("q4_0, nf4")] == ["Q4_0", "NF4"]
    with pytest.raises(ValueError, match="format must be one of TQ1_0, .*, got 'Q9'"):
        f.standard("Q9")
    with pytest.raises(ValueError, match="menu must be one of gguf, mx, int, all, sparse, or names of formats"):
        f.menu("ggfu")
    with pytest.raises(ValueError, match="outliers must be 0 for 4 bits, blocks of 32, fp16 scales and minima"):
        f.quantize(np.ones((2, 32)), f.standard("Q4_1"), outliers=0.1)


@pytest.mark.parametrize("law", LAWS)
def test_what_quantized_scales_cost(law):
    """The loss by it alone, far below what 10^7 weights lose in all: same codes, scales as stored less scales."""
    known, draw = LAWS[law]
    x = draw(np.random.default_rng(3), (2**13, 256)).astype(np.float32)
    plain = f.BlockFormat(f.nf4(), 64)
    exact, stored = f.quantize(x, plain), f.quantize(x, f.standard("NF4_DQ"))
    np.testing.assert_array_equal(exact.codes, stored.codes)
    lost = [((each.dequantize().astype(float) - x) ** 2).mean(1) for each in (exact, stored)]
    more, expected = lost[1] - lost[0], float(f.relative_rms_error(known, f.standard("NF4_DQ")) ** 2)
    expected -= float(f.relative_rms_error(known, plain) ** 2)
    assert abs(more.mean() - expected) < 3 * more.std() / more.size**0.5
    assert more.mean() > 10 * more.std() / more.size**0.5


def test_quantized_scales_as_bitsandbytes_has_them():
    """Its map, of 256 numbers, spelled out; the unit is the largest deviation from the mean of all scales."""
    from replicajax.formats._double import DYNAMIC, DoubleScales

    ends = [10.0**-decade * np.linspace(0.1, 1, 2 ** (6 - decade) + 1) for decade in range(7)]
    middles = np.concatenate([(e[:-1] + e[1:]) / 2 for e in ends])
    np.testing.assert_allclose(DYNAMIC, np.sort([*middles, *-middles, 0.0, 1.0]), rtol=1e-15)
    assert DYNAMIC.size == 256
    x = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    found = f.quantize(x, f.standard("NF4_DQ"))
    assert isinstance(found.scales, DoubleScales)
    assert found.bits == 4 * x.size + 8 * 300 + 2 * 32 + 64
    assert found.bits / x.size <= f.standard("NF4_DQ").stored_bits(x.shape)
    scales = np.abs(x).max(1)
    off = scales - scales.mean()
    for part in (slice(0, 256), slice(256, 300)):
        unit = np.abs(off[part]).max()
        nearest = DYNAMIC[np.abs(off[part, None] / unit - DYNAMIC).argmin(1)]
        np.testing.assert_allclose(found.scales.astype(np.float64)[part], scales.mean() + unit * nearest, rtol=1e-5)
    for unit in (1e-42, 1e-40, 1e-36, np.finfo(np.float32).max / 8):  # as far as float32 goes
        scaled = (x.astype(float) * unit).astype(np.float32)
        off = f.quantize(scaled, f.standard("NF4_DQ")).dequantize().astype(float) - scaled
        assert np.linalg.norm(off) / np.linalg.norm(scaled.astype(float)) == pytest.approx(
            0.092, rel=0.03 if unit > 1e-41 else 1
        )
    zeros = f.quantize(np.zeros((4, 64), np.float32), f.standard("NF4_DQ"))
    assert not zeros.dequantize().any()
    with pytest.raises(ValueError, match="'double' must be of blocks with scaling 'absmax'"):
        f.BlockFormat(f.nf4(), None, "absmax", "double")
