"""Actual tensors and files: round trips, exact sizes, and what is refused."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import replicajax as rj
from replicajax.formats._block import SCALE_FORMATS
from replicajax.formats._files import open_weights
from replicajax.formats._packing import pack, packed_bytes, unpack, whole_chunk
from replicajax.formats._tensor import _CHUNK, _encode, block_size

f = rj.formats
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("levels", [2, 3, 4, 7, 8, 15, 16, 19, 32, 100, 256, 257, 1000, 1024, 65536])
def test_packing(levels):
    for count in (0, 1, 7, 64, 1001):
        codes = RNG.integers(0, levels, count).astype(np.uint8 if levels <= 256 else np.uint16)
        packed = pack(codes, levels)
        assert packed.size == packed_bytes(count, levels)
        np.testing.assert_array_equal(unpack(packed, count, levels), codes)
    codes = np.full(whole_chunk(levels) * 3, levels - 1, np.uint16)
    parts = np.concatenate([pack(part, levels) for part in np.split(codes, 3)])
    np.testing.assert_array_equal(parts, pack(codes, levels))


FORMATS = [
    f.BlockFormat(f.nf4(), 64),
    f.BlockFormat(f.integer(3), "channel", "signmax", "bf16"),
    f.BlockFormat(f.floating_point(2, 1), 32, "absmax", "e8m0"),
    f.BlockFormat(f.cube_root(f.Normal(), 4.25), None, "rms"),
    f.BlockFormat(f.cube_root(f.Normal(), 3), 50, "rms", "fp16"),
    f.BlockFormat(f.integer(8), 16, "absmax", "e4m3"),
    f.BlockFormat(f.cube_root(f.Normal(), 10), None, "rms"),
    f.BlockFormat(f.integer(5), 16, "signmax", "e5m2"),
    f.integer(4),
]


def plain(x, fmt):
    """What a format does, in a loop over blocks."""
    if isinstance(fmt, rj.Codebook):
        levels = np.asarray(fmt.levels)
        return levels[np.abs(x.reshape(-1, 1) - levels).argmin(1)].reshape(x.shape)
    size = (
        {None: x.size, "channel": x.shape[-1]}.get(fmt.block_size)
        if not np.ndim(fmt.block_size) and (fmt.block_size is None or isinstance(fmt.block_size, str))
        else int(fmt.block_size)
    )
    levels, out, flat = np.asarray(fmt.codebook.levels), [], x.ravel().astype(np.float32)
    scales = []
    blocks = [flat[i : i + size] for i in range(0, flat.size, size)]
    for block in blocks:
        if fmt.scaling == "absmax":
            scales.append(np.abs(block).max() / np.float32(min(-levels[0], levels[-1])))
        elif fmt.scaling == "signmax":
            scales.append(block[np.abs(block).argmax()] / np.float32(max(levels, key=abs)))
        else:
            scales.append(np.sqrt((block.astype(float) ** 2).mean()))
    scales = np.array(scales, np.float32)
    kind = {
        "bf16": ml_dtypes.bfloat16,
        "fp16": np.float16,
        "e4m3": ml_dtypes.float8_e4m3fn,
        "e5m2": ml_dtypes.float8_e5m2,
    }
    if fmt.scale_format == "e8m0":
        scales = 2 ** np.ceil(np.log2(scales))
    elif fmt.scale_format in kind:
        dtype = kind[fmt.scale_format]
        top = 2.0 ** np.ceil(np.log2(np.abs(scales).max() / float(ml_dtypes.finfo(dtype).max)))
        shift = 1.0 if fmt.scale_format == "bf16" else top
        scales = (scales / shift).astype(dtype).astype(float) * shift
    for block, scale in zip(blocks, scales, strict=True):
        out.append(levels[np.abs(block[:, None] / scale - levels).argmin(1)] * scale)
    return np.concatenate(out).reshape(x.shape)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("shape", [(37, 53), (1000,), (2, 3, 4, 5)])
def test_quantize(fmt, shape):
    """Against a loop; codes come back through bytes, and weights at levels keep their codes."""
    x = RNG.standard_normal(shape).astype(np.float32)
    q = f.quantize(x, fmt)
    back = q.dequantize()
    assert back.shape == shape
    assert back.dtype == x.dtype
    want = plain(x, fmt)
    differs = ~np.isclose(back, want, rtol=1e-5, atol=1e-7)
    assert differs.mean() < 2e-3  # a weight within rounding of a threshold
    scales, unit = q.scales.astype(np.float32), np.float32(q.tensor_scale)
    again = _encode(back.ravel(), q.format, block_size(q.format, shape), scales, unit)
    np.testing.assert_array_equal(again, q.packed)


def test_size_is_what_is_stored():
    x = RNG.standard_normal((64, 64)).astype(np.float32)
    q = f.quantize(x, f.BlockFormat(f.nf4(), 64, "absmax", "bf16"))
    assert q.bits == 64 * 64 * 4 + 64 * 16 + 32
    assert (q.packed.nbytes, q.scales.nbytes) == (2048, 128)
    with_outliers = f.quantize(x, f.BlockFormat(f.nf4(), 64, "absmax", "bf16"), outliers=10 / 4096)
    assert with_outliers.bits == q.bits + 10 * (32 + 32)
    kept = with_outliers.outlier_index
    np.testing.assert_array_equal(with_outliers.dequantize().ravel()[kept], x.ravel()[kept])
    assert set(kept) == set(np.argsort(np.abs(x.ravel()))[-10:])
    assert ((with_outliers.dequantize() - x) ** 2).mean() < ((q.dequantize() - x) ** 2).mean()


def test_error_is_the_theory():
    """A million normal weights."""
    x = RNG.standard_normal((1000, 1024)).astype(np.float32)
    for fmt in (f.BlockFormat(f.nf4(), 64, "absmax", "bf16"), f.BlockFormat(f.integer(4), 32, "absmax", "e8m0")):
        error = np.sqrt(((f.quantize(x, fmt).dequantize() - x) ** 2).mean() / (x**2).mean())
        np.testing.assert_allclose(error, f.relative_rms_error(f.Normal(), fmt), rtol=3e-3)


@pytest.mark.slow
def test_pieces_change_nothing():
    """A tensor longer than a piece, in blocks that straddle its edge."""
    x = RNG.standard_normal(_CHUNK + 1000).astype(np.float32)
    for fmt in (f.BlockFormat(f.integer(4), 1003), f.BlockFormat(f.cube_root(f.Normal(), np.log2(19)), None, "rms")):
        q = f.quantize(x, fmt)
        tail = slice(_CHUNK - 2000, None)
        scale = q.scales.astype(np.float32)
        levels = np.asarray(fmt.codebook.levels, np.float32)
        block = block_size(fmt, x.shape)
        which = scale[np.arange(x.size)[tail] // block]
        nearest = np.abs(x[tail, None] / which[:, None] - levels).argmin(1)
        assert (q.codes[tail] != nearest).mean() < 1e-3
        np.testing.assert_array_equal(q.dequantize()[tail], levels[q.codes[tail]] * which)


def test_read_only_tensors():
    """Such as JAX's, which numpy may not write to."""
    x = np.ones((4, 64), np.float32)
    x.setflags(write=False)
    np.testing.assert_array_equal(f.quantize(x, f.BlockFormat(f.nf4(), 64)).dequantize(), x)
    np.testing.assert_array_equal(f.quantize(x, f.BlockFormat(f.nf4(), 64), outliers=0.1).dequantize(), x)


def test_the_smallest_scales():
    """A block of zeros under a format without zeros in scale or levels; and numbers below float32's normal ones."""
    no_zero = f.integer(4, symmetric=True)
    x = np.zeros((2, 32), np.float32)
    x[1] = 3.0
    back = f.quantize(x, f.BlockFormat(no_zero, 32, "absmax", "e8m0")).dequantize()
    assert np.abs(back[0]).max() < 1e-37
    np.testing.assert_allclose(back[1], 3.0, rtol=0.1)
    tiny = np.full((2, 32), 1e-40, np.float32)
    tiny[0, 0] = -1e-40
    assert np.abs(f.quantize(tiny, f.BlockFormat(f.nf4(), 32)).dequantize()).max() <= 1.01e-40


def test_numbers_at_the_ends_of_the_range():
    """What once became NaN, infinities or zeros; a float64 that float32 cannot hold is refused."""
    int4, fp16, e8m0 = f.integer(4), "fp16", "e8m0"
    tiny = np.full(4, 1e-40, np.float32)
    q = f.quantize(tiny, f.BlockFormat(int4, 4, "absmax", fp16))
    np.testing.assert_allclose(q.dequantize(), tiny, rtol=1e-3)
    assert q.clamped == 0
    half = np.array([6e4, -6e4], np.float16)
    back = f.quantize(half, f.BlockFormat(int4, 2, "absmax", e8m0)).dequantize()
    np.testing.assert_allclose(back, half, rtol=0.1)
    large = np.array([3e38, 1], np.float32)
    for scale in (e8m0, None, fp16, "e4m3"):
        back = f.quantize(large, f.BlockFormat(int4, 2, "absmax", scale)).dequantize()
        np.testing.assert_allclose(back, [3e38, 0], rtol=0.15)
    for x in ([1e300, 1.0], [1e-300, 0.0]):
        with pytest.raises(ValueError, match="tensor must fit float32, got weights of magnitude up to 1e"):
            f.quantize(np.array(x), f.BlockFormat(int4, 2))
    # Blocks 2^46 apart: fp16 has no scale for the smaller one, which is said, and becomes zeros.
    q = f.quantize(np.array([1.0, -1.0, 1e-14, 1e-14], np.float32), f.BlockFormat(int4, 2, "absmax", fp16))
    np.testing.assert_allclose(q.dequantize(), [1, -1, 0, 0], rtol=1e-3)
    assert q.clamped == 1


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=lambda d: d.__name__)
def test_any_finite_tensor_stays_finite(dtype):
    """Magnitudes over all of the dtype's range, alone and mixed: never worse than zeros."""
    rng, finite = np.random.default_rng(1), ml_dtypes.finfo(dtype)
    low = max(float(np.log2(float(finite.smallest_subnormal))), -148.0)
    high = min(float(np.log2(float(finite.max))), 127.99)
    books = [f.integer(4), f.nf4(), f.floating_point(2, 1), rj.codebook(1e-3 * np.arange(-8, 8.0))]
    with np.errstate(over="ignore", under="ignore"):
        for trial in range(160):
            scaling = ("absmax", "signmax", "rms")[trial % 3]
            kind = list(SCALE_FORMATS)[trial % 7]
            if kind == "e8m0" and scaling == "signmax":
                continue
            middle, spread = rng.uniform(low, high), rng.choice([0.0, 1.0, 20.0, 100.0])
            exponent = np.clip(middle + spread * rng.standard_normal((5, 1)), low, high)
            x = (np.exp2(exponent) * rng.uniform(0.5, 1, (5, 16)) * rng.choice([-1, 0, 1], (5, 16))).astype(dtype)
            q = f.quantize(x, f.BlockFormat(books[trial % 4], 16, scaling, kind))
            back, x = q.dequantize().astype(np.longdouble), x.astype(np.longdouble)
            assert np.isfinite(q.scales.astype(np.float64)).all()
            assert np.isfinite(back).all()
            assert ((back - x) ** 2).sum() <= (x**2).sum() * (1 + 1e-6), (trial, middle, spread)


def test_zeros_and_short_tensors():
    fmt = f.BlockFormat(f.nf4(), 64)
    x = np.zeros((3, 64), np.float32)
    x[1] = 1.0
    np.testing.assert_array_equal(f.quantize(x, fmt).dequantize(), x)
    assert f.quantize(np.zeros((0, 4), np.float32), fmt).dequantize().shape == (0, 4)
    np.testing.assert_array_equal(f.quantize(np.float32(2.0), fmt).dequantize(), 2.0)
    for dtype in (np.float16, ml_dtypes.bfloat16, np.float64):
        assert f.quantize(np.ones((4, 4), dtype), fmt).dequantize().dtype == dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: f.quantize(np.arange(4), f.nf4()), "must hold floating-point numbers"),
        (lambda: f.quantize(np.array([1.0, np.nan, np.inf]), f.nf4()), "must be finite, got 2 NaN or inf"),
        (lambda: f.quantize(np.ones(4), f.BlockFormat(f.nf4(), 2.5)), "must be a whole number"),
        (lambda: f.quantize(np.ones(4), f.nf4(), outliers=1.0), "outliers must be a fraction"),
        (lambda: f.quantize(-np.ones(4), f.BlockFormat(f.nf4(), 2, "signmax", "e8m0")), "'e8m0' has no sign"),
        (lambda: f.quantize(np.ones(4), "nf4"), "fmt must be a BlockFormat"),
    ],
)
def test_bad_tensors(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.fixture
def weights(tmp_path):
    tensors = {
        "embedding": (0.02 * RNG.standard_t(5, (100, 32))).astype(np.float32),
        "layer.kernel": RNG.standard_normal((32, 64)).astype(ml_dtypes.bfloat16),
        "layer.bias": np.zeros(64, np.float32),
        "ids": np.arange(10),
        "head": RNG.laplace(size=(64, 100)).astype(np.float16),
    }
    save_file(tensors, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **tensors)
    fisher = {"embedding": 1.0, "layer.kernel": 0.01, "head": 0.1}
    save_file(
        {n: np.full(tensors[n].shape, value, np.float32) for n, value in fisher.items()},
        tmp_path / "fisher.safetensors",
    )
    return tensors, tmp_path


@pytest.mark.parametrize("suffix", ["safetensors", pytest.param("npz", marks=pytest.mark.slow)])
def test_allocate_and_quantize_a_file(weights, suffix):
    tensors, folder = weights
    described = f.describe_weights(folder / f"w.{suffix}", folder / "fisher.safetensors")
    plan = f.allocate(described, 4.0)
    counts = np.array([t.count for t in plan.tensors])
    assert {t.name for t in plan.kept} == {"layer.bias", "ids"}
    assert 3.8 < counts @ plan.bits / counts.sum() <= 4.0
    size = f.quantize_file(folder / f"w.{suffix}", folder / "q.safetensors", plan)
    back = f.dequantize_file(folder / "q.safetensors")
    assert set(back) == set(tensors)
    stored = sum(x.nbytes for x in load_file(folder / "q.safetensors").values())
    assert stored == size < sum(np.asarray(x).nbytes for x in tensors.values()) / 3
    for tensor, error in zip(plan.tensors, plan.error, strict=True):
        x, y = (np.asarray(z[tensor.name], float) for z in (tensors, back))
        assert back[tensor.name].dtype == tensors[tensor.name].dtype
        np.testing.assert_allclose(np.sqrt(((x - y) ** 2).mean() / (x**2).mean()), error, rtol=0.1)
    for name in ("layer.bias", "ids"):
        np.testing.assert_array_equal(back[name], tensors[name])
    # bits follow log2 RMS + log2(Fisher)/2, to the rounding down of the number of levels
    score = np.array([np.log2(t.rms) + np.log2(t.fisher) / 2 for t in plan.tensors])
    free = plan.bits > 1
    assert free.sum() >= 2
    assert np.ptp((plan.bits - score)[free]) < 0.35


def test_nothing_half_written(weights, monkeypatch):
    _, folder = weights
    plan = f.allocate(f.describe_weights(folder / "w.safetensors"), 4.0)
    target = folder / "q.safetensors"
    target.write_bytes(b"what was there")

    def fail(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        f.quantize_file(folder / "w.safetensors", target, plan, fail)
    assert target.read_bytes() == b"what was there"
    assert not list(folder.glob(".*.part"))


def test_damaged_files(weights):
    _, folder = weights
    good = (folder / "w.safetensors").read_bytes()
    for suffix in ("safetensors", "npz"):
        whole = (folder / f"w.{suffix}").read_bytes()
        for name, content in {
            "empty": b"",
            "cut": whole[: len(whole) // 2],
            "noise": b"not a weight file at all",
        }.items():
            path = folder / f"{name}.{suffix}"
            path.write_bytes(content)
            with pytest.raises(ValueError, match="cannot be read"):
                f.describe_weights(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        f.describe_weights(folder / "missing.npz")
    (folder / "w.bin").write_bytes(good)
    with pytest.raises(ValueError, match=r"must end in \.safetensors or \.npz"):
        f.describe_weights(folder / "w.bin")
    np.savez(folder / "none.npz")
    with pytest.raises(ValueError, match="holds no tensors"):
        f.describe_weights(folder / "none.npz")
    plan = f.allocate(f.describe_weights(folder / "w.safetensors"), 4.0)
    with pytest.raises(FileNotFoundError, match="folder .* does not exist"):  # and not that the weights cannot be read
        f.quantize_file(folder / "w.safetensors", folder / "nowhere" / "q.safetensors", plan)
    with pytest.raises(ValueError, match="got none for tensor"):
        f.quantize_file(folder / "w.safetensors", folder / "q.safetensors", plan._replace(kept=[]))
    with pytest.raises(ValueError, match="holds no codes of replicajax"):
        f.dequantize_file(folder / "w.safetensors")


def test_tensors_that_cannot_be_quantized(tmp_path):
    save_file({"w": np.array([[1.0, np.nan]] * 20, np.float32)}, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match="tensor 'w' must be finite"):
        f.describe_weights(tmp_path / "nan.safetensors")
    save_file({"ids": np.arange(100).reshape(10, 10), "b": np.ones(50, np.float32)}, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="no tensor to quantize"):
        f.allocate(f.describe_weights(tmp_path / "none.safetensors"), 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fisher: fisher.pop("head"), "has no tensor 'head'"),
        (lambda fisher: fisher.update(head=np.ones((3, 3), np.float32)), "'head' must have shape"),
        (lambda fisher: fisher.update(head=-np.ones((64, 100), np.float32)), "must be finite and not negative"),
    ],
)
def test_fisher_files_that_do_not_fit(weights, change, message):
    _, folder = weights
    fisher = load_file(folder / "fisher.safetensors")
    change(fisher)
    save_file(fisher, folder / "other.safetensors")
    with pytest.raises(ValueError, match=message):
        f.describe_weights(folder / "w.safetensors", folder / "other.safetensors")


def test_bf16_in_npz_has_no_name(weights):
    with open_weights(weights[1] / "w.npz") as file:
        assert file.read("layer.kernel").dtype == ml_dtypes.bfloat16


@pytest.mark.slow
def test_commands(weights, capsys, monkeypatch):
    from replicajax.cli import main

    tensors, folder = weights
    file, fisher, target = (str(folder / n) for n in ("w.safetensors", "fisher.safetensors", "q.safetensors"))

    def run(*arguments):
        monkeypatch.setenv("REPLICAJAX_CACHE", "off")
        monkeypatch.setattr("sys.argv", ["replicajax", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        captured = capsys.readouterr()
        return exit.value.code, captured.out, captured.err

    code, out, err = run("allocate", file, "--fisher", fisher, "--bits", "6.5", "--quantize", target, "--json")
    assert code in (0, None), err
    result = json.loads(out)
    assert {row["tensor"] for row in result["tensors"]} == {"embedding", "layer.kernel", "head"}
    assert abs(sum(row["share"] for row in result["tensors"]) - 1) < 1e-9
    assert result["mean_bits"] <= 6.5
    assert result["gap"] == 0
    assert result["single"] is None or result["divergence"] <= result["single"]["score"]
    assert result["actual_error"]["head"] == pytest.approx(
        next(row["relative_error"] for row in result["tensors"] if row["tensor"] == "head"), rel=1e-6
    )
    np.testing.assert_array_equal(f.dequantize_file(target)["ids"], tensors["ids"])
    _, out, _ = run("allocate", file, "--bits", "6.5")
    assert "without --fisher or --moments" in " ".join(out.split())
    code, _, error = run("allocate", str(folder / "missing.safetensors"))
    assert code == 2
    assert len(error.strip().splitlines()) == 1
    code, out, _ = run("formats", "--distribution", "laplace", "--bits", "4", "--json")
    rows = {row["name"]: row for row in json.loads(out)["formats"]}
    assert (
        abs(rows["Lloyd-Max, 4 bits"]["error"] - float(f.relative_rms_error(f.Laplace(), f.lloyd_max(f.Laplace(), 4))))
        < 1e-12
    )
    assert run("formats", "--distribution", "cauchy")[0] == 2
