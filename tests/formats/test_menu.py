"""Menus on weight files: what is predicted is what is written, within the budget, readable by those who serve it."""

import json
import re
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from gguf import GGUFReader, quants
from safetensors.numpy import save_file

from replicajax import formats as f
from replicajax.codebooks import Codebook
from replicajax.formats._files import parts


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {
        "embed.weight": rng.standard_t(4, size=(300, 256)).astype(np.float32),
        "layer.q.weight": (0.05 * rng.normal(size=(256, 512))).astype(np.float32),
        "layer.k.weight": (0.02 * rng.normal(size=(256, 512))).astype(np.float32),
        "layer.odd.weight": (0.1 * rng.normal(size=(40, 50))).astype(np.float32),
        "layer.norm.weight": np.ones(256, np.float32),
        "ids": np.arange(12, dtype=np.int64),
    }


@pytest.fixture
def file(weights, tmp_path):
    save_file(weights, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def measured(file):
    return f.measure_formats(file, f.menu("all"))


def test_never_worse_than_one_format_for_all(measured):
    for bits in (3.2, 4.25, 5.0, 8.25):
        plan = f.choose(measured, bits)
        assert plan.gap == 0
        assert plan.mean_bits <= bits
        for j in range(len(measured.formats)):
            b, score = measured.single(j)
            assert b > bits or plan.score.sum() <= score


def test_what_is_written_is_what_was_predicted(measured, file, weights, tmp_path):
    for bits in (3.2, 4.3, 6.0):
        plan, errors = f.choose(measured, bits), {}
        size = f.quantize_file(file, tmp_path / "q.safetensors", plan, errors=errors)
        assert size <= plan.bytes <= measured.kept_bytes + bits / 8 * measured.counts.sum() + 1
        back = f.dequantize_file(tmp_path / "q.safetensors")
        for tensor, error in zip(plan.tensors, plan.error, strict=True):
            x = weights[tensor.name].astype(float)
            found = np.sqrt(np.sum((back[tensor.name] - x) ** 2) / np.sum(x**2))
            assert found == pytest.approx(error, rel=1e-4)
            assert errors[tensor.name] == pytest.approx(found, rel=1e-6)
        for name in ("layer.norm.weight", "ids"):
            np.testing.assert_array_equal(back[name], weights[name])
        f.dequantize_to(tmp_path / "q.safetensors", tmp_path / "again.safetensors")
        with f._files.open_weights(tmp_path / "again.safetensors") as again:
            for name in again.names:
                np.testing.assert_array_equal(again.read(name), back[name])


def test_every_format_comes_back_from_a_file(tmp_path):
    rng = np.random.default_rng(1)
    formats = {each.name: each for each in (*f.menu("all"), *f.menu("sparse"))}
    tensors = {name: rng.standard_t(5, size=(8, 512)).astype(np.float32) for name in formats}
    save_file(tensors, tmp_path / "w.safetensors")
    measured = f.measure_formats(tmp_path / "w.safetensors", tuple(formats.values()))
    plan = f.choose(measured, 16.0, pinned={x: x for x in tensors})
    assert [fmt.name for fmt in plan.formats] == [t.name for t in plan.tensors]
    assert f.quantize_file(tmp_path / "w.safetensors", tmp_path / "q.safetensors", plan) <= plan.bytes
    back = f.dequantize_file(tmp_path / "q.safetensors")
    for name, x in tensors.items():
        np.testing.assert_array_equal(back[name], f.quantize(x, f.standard(name)).dequantize(), err_msg=name)


class Own(NamedTuple):
    """A plan of formats without names."""

    tensors: list
    kept: list
    formats: list

    def format(self, index):
        return self.formats[index]


def test_formats_without_a_name_come_back_too(tmp_path):
    rng, levels = np.random.default_rng(2), Codebook([-1.0, -0.3, 0.2, 0.9])
    formats = [
        f.BlockFormat(levels, 16),
        f.BlockFormat(levels, "channel", "rms", "fp16", 1.2),
        f.BlockFormat(levels, 32, "signmax", "e4m3"),
        f.BlockFormat(levels, 64, scale_format="double"),
        f.BlockFormat(levels),
    ]
    tensors = {str(i): (1e-7 * rng.normal(size=(6, 128))).astype(np.float32) for i in range(len(formats))}
    save_file(tensors, tmp_path / "w.safetensors")
    of_file = f.measure_formats(tmp_path / "w.safetensors", f.menu("all")).tensors
    errors = {}
    f.quantize_file(tmp_path / "w.safetensors", tmp_path / "q.safetensors", Own(of_file, [], formats), errors=errors)
    back = f.dequantize_file(tmp_path / "q.safetensors")
    for tensor in of_file:
        expected = f.quantize(tensors[tensor.name], formats[int(tensor.name)]).dequantize()
        np.testing.assert_array_equal(back[tensor.name], expected, err_msg=tensor.name)
        assert errors[tensor.name] < 0.7


@pytest.mark.parametrize("after", [0, 3, 6])
def test_a_file_that_was_cut_off_is_gone_on_with(tmp_path, after):
    """Only what was not written is made again, and the file is the same; another source is begun anew."""
    rng, source = np.random.default_rng(3), tmp_path / "w.safetensors"
    names = ("NF4_DQ", "NF4_SPARSE", "Q4_1", "INT4_G64_ZERO", "BF16", "MXFP4", "FP8_E4M3")
    tensors = {name: rng.normal(size=(8, 256)).astype(np.float32) for name in names}
    save_file(tensors | {"bias": np.ones(3, np.float32)}, source)
    plan = f.choose(f.measure_formats(source, f.menu(",".join(names))), 16.0, pinned={x: x for x in tensors})
    f.quantize_file(source, tmp_path / "whole.safetensors", plan)
    made, target = [], tmp_path / "q.safetensors"

    def rounding(name, array, fmt):
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(name)
        return f.quantize(array, fmt)

    with pytest.raises(KeyboardInterrupt):
        f.quantize_file(source, target, plan, rounding=rounding, resume="nearest")
    assert not target.exists()
    assert len(list(tmp_path.glob(".q.*.part"))) == 1
    again, errors, weights = [], {}, []

    def rest(name, array, fmt):
        again.append(name)
        return f.quantize(array, fmt)

    f.quantize_file(source, target, plan, weights.append, errors, rest, resume="nearest")
    assert sorted([*made, *again]) == sorted(names)
    assert target.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert sum(weights) == 8 * 256 * len(names)
    found = f.dequantize_file(target)
    for name, x in tensors.items():
        lost = np.linalg.norm(found[name].astype(float) - x) / np.linalg.norm(x.astype(float))
        assert errors[name] == pytest.approx(lost, rel=1e-6)
    assert not list(tmp_path.glob(".*.part"))
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        f.quantize_file(source, target, plan, rounding=rounding, resume="nearest")
    save_file(tensors | {"bias": np.zeros(3, np.float32)}, source)
    again.clear()
    f.quantize_file(source, target, plan, rounding=rest, resume="nearest")
    assert sorted(again) == sorted(names)
    assert not f.dequantize_file(target)["bias"].any()
    assert not list(tmp_path.glob(".*.part"))


def test_gguf_is_read_by_its_reader_bit_for_bit(tmp_path):
    rng = np.random.default_rng(2)
    tensors = {each.name: rng.standard_t(5, size=(8, 512)).astype(np.float32) for each in f.menu("gguf")}
    tensors |= {"bias": rng.normal(size=7).astype(np.float32), "ids": np.arange(5, dtype=np.int32)}
    save_file(tensors, tmp_path / "w.safetensors")
    measured = f.measure_formats(tmp_path / "w.safetensors", f.menu("gguf"))
    plan = f.choose(measured, 16.0, pinned={each.name: each.name for each in f.menu("gguf")})
    size = f.quantize_file(tmp_path / "w.safetensors", tmp_path / "q.gguf", plan)
    assert plan.bytes - 8 <= size <= plan.bytes  # words of TQ1_0 that are not full elsewhere
    found = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "q.gguf").tensors}
    assert set(found) == set(tensors)
    for each in f.menu("gguf"):
        tensor = found[each.name]
        assert tensor.tensor_type.name == each.name
        ours = f.quantize(tensors[each.name], each).dequantize()
        theirs = np.asarray(quants.dequantize(tensor.data, tensor.tensor_type)).reshape(ours.shape)
        np.testing.assert_array_equal(theirs, ours, err_msg=each.name)
    np.testing.assert_array_equal(found["bias"].data, tensors["bias"])
    np.testing.assert_array_equal(found["ids"].data, tensors["ids"])


def test_formats_that_gguf_lacks(measured, file, tmp_path):
    plan = f.choose(measured, 16.0, pinned={"embed.weight": "nvfp4"})
    with pytest.raises(ValueError, match=r"a .gguf file must be of ggml's formats \(menu 'gguf'\), got NVFP4"):
        f.quantize_file(file, tmp_path / "q.gguf", plan)
    assert not (tmp_path / "q.gguf").exists()


def test_rows_that_blocks_do_not_fill_get_other_formats(measured):
    odd = [t.name for t in measured.tensors].index("layer.odd.weight")
    for j, fmt in enumerate(measured.formats):
        assert np.isinf(measured.score[odd, j]) == (50 % fmt.block != 0)


def test_bytes_groups_and_pins(measured):
    size = measured.kept_bytes + 5 / 8 * measured.counts.sum()
    plan = f.choose(measured, size=size, pinned={"embed.weight": "Q8_0"}, groups=[0, 1, 2, 1])
    assert plan.bytes <= size
    names = {t.name: fmt.name for t, fmt in zip(plan.tensors, plan.formats, strict=True)}
    assert names["embed.weight"] == "Q8_0"
    with pytest.raises(ValueError, match=r"size must be at least [\d,]+ bytes, the least possible, got 1,000"):
        f.choose(measured, size=1000)
    need = int(
        re.search(r"at least ([\d,]+) bytes", str(_message(lambda: f.choose(measured, size=1000))))[1].replace(",", "")
    )
    assert f.choose(measured, size=need).bytes <= need
    with pytest.raises(ValueError, match="pinned must map 'layer.odd.weight' to a format whose blocks fill its rows"):
        f.choose(measured, 5.0, pinned={"layer.odd.weight": "Q8_0"})
    with pytest.raises(ValueError, match="pinned must map a tensor of the file, got 'none'"):
        f.choose(measured, 5.0, pinned={"none": "Q8_0"})
    with pytest.raises(ValueError, match="pinned must map to a format of the menu, got 'Q9'"):
        f.choose(measured, 5.0, pinned={"embed.weight": "Q9"})
    with pytest.raises(ValueError, match="either mean_bits or size"):
        f.choose(measured, 5.0, size=1e9)


def test_fisher_information_decides(file, weights, tmp_path):
    """Elementwise: ½ sum F d² of the very errors; what matters gets the bits."""
    rng = np.random.default_rng(3)
    fisher = {name: rng.exponential(size=x.shape).astype(np.float32) for name, x in weights.items() if x.ndim == 2}
    fisher["layer.k.weight"] *= 1e6
    save_file(fisher, tmp_path / "fisher.safetensors")
    informed = f.measure_formats(file, f.menu("q4_0,q8_0,int8_channel"), tmp_path / "fisher.safetensors")
    i, j = [t.name for t in informed.tensors].index("embed.weight"), 0
    lost = f.quantize(weights["embed.weight"], informed.formats[j]).dequantize() - weights["embed.weight"]
    assert informed.score[i, j] == pytest.approx(0.5 * np.sum(fisher["embed.weight"].astype(float) * lost**2), rel=1e-5)
    plan = f.choose(informed, 6.5)
    names = {t.name: fmt.name for t, fmt in zip(plan.tensors, plan.formats, strict=True)}
    assert names["layer.k.weight"] != "Q4_0"
    assert names["embed.weight"] == "Q4_0" or names["layer.q.weight"] == "Q4_0"


def test_shards_are_one_file(weights, measured, tmp_path):
    folder = tmp_path / "sharded"
    folder.mkdir()
    shards = [dict(list(weights.items())[:2]), dict(list(weights.items())[2:])]
    for k, shard in enumerate(shards):
        save_file(shard, folder / f"model-{k}.safetensors")
    place = {name: f"model-{k}.safetensors" for k, shard in enumerate(shards) for name in shard}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    found = f.measure_formats(folder, f.menu("all"))
    np.testing.assert_allclose(np.sort(found.score.ravel()), np.sort(measured.score.ravel()))
    plan = f.choose(found, 5.0)
    f.quantize_file(folder, tmp_path / "q.safetensors", plan)
    assert set(f.dequantize_file(tmp_path / "q.safetensors")) == set(weights)
    for part in parts(folder)[1:]:
        with pytest.raises(ValueError, match="would overwrite"):
            f.quantize_file(folder, part, plan)


def test_large_tensors_are_tried_in_part(tmp_path, monkeypatch):
    x = np.random.default_rng(4).normal(size=(4096, 64)).astype(ml_dtypes.bfloat16)
    save_file({"w": x.astype(np.float32)}, tmp_path / "w.safetensors")
    whole = f.measure_formats(tmp_path / "w.safetensors", f.menu("int"))
    monkeypatch.setattr(f._menu, "_MOST", 2**14)
    part = f.measure_formats(tmp_path / "w.safetensors", f.menu("int"))
    np.testing.assert_allclose(part.score, whole.score, rtol=0.05)
    assert np.isfinite(part.error[0, 0])


def test_nothing_to_quantize(tmp_path):
    save_file({"bias": np.ones(64, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="no tensor to quantize"):
        f.measure_formats(tmp_path / "w.safetensors", f.menu("all"))
    with pytest.raises(ValueError, match="menu must name at least one format"):
        f.measure_formats(tmp_path / "w.safetensors", ())


def test_moments_count_outputs(file, weights, tmp_path):
    """tr(d H dᵀ)/tr(W H Wᵀ) of the very errors; tables without moments by the squares of their rows."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(600, 512)) * np.linspace(0.1, 3, 512)
    save_file({"layer.q.weight": X.T @ X / 600}, tmp_path / "moments.safetensors")
    found = f.measure_formats(file, f.menu("q4_0,q8_0,int8_channel"), moments=tmp_path / "moments.safetensors")
    assert found.unit == "output error"
    names = [t.name for t in found.tensors]
    for name, inputs in (("layer.q.weight", X), ("embed.weight", np.eye(256))):
        W = weights[name].astype(float)
        lost = f.quantize(weights[name], f.standard("Q4_0")).dequantize() - W
        expected = np.sum((lost @ inputs.T) ** 2) / np.sum((W @ inputs.T) ** 2)
        assert found.score[names.index(name), 0] == pytest.approx(expected, rel=1e-4)
    save_file({"layer.q.weight": np.eye(3)}, tmp_path / "bad.safetensors")
    with pytest.raises(
        ValueError, match=r"moments of 'layer.q.weight' must be finite, \(512, 512\), got shape \(3, 3\)"
    ):
        f.measure_formats(file, f.menu("q8_0"), moments=tmp_path / "bad.safetensors")


def test_what_is_no_second_moment_is_refused(tmp_path):
    W, H = np.ones((4, 32), np.float32), np.eye(32)
    save_file({"a": W * np.arange(1, 33, dtype=np.float32)}, tmp_path / "w.safetensors")
    for change, message in (
        (H * 0.1 + np.ones((32, 32)) * (1 - H), "moments of 'a' must have eigenvalues >= 0"),
        (H + np.triu(np.ones((32, 32)), 1), "moments of 'a' must be symmetric"),
        (0 * H, "moments of 'a' must not be 0 throughout"),
        (-H, "moments of 'a' must have a diagonal >= 0"),
    ):
        save_file({"a": change}, tmp_path / "h.safetensors")
        with pytest.raises(ValueError, match=message):
            f.measure_formats(tmp_path / "w.safetensors", f.menu("q8_0"), moments=tmp_path / "h.safetensors")


def test_another_plan_is_not_gone_on_with(tmp_path):
    """Codebooks without a name are told apart by their levels."""
    rng, source = np.random.default_rng(3), tmp_path / "w.safetensors"
    save_file({name: rng.normal(size=(8, 256)).astype(np.float32) for name in "abc"}, source)
    measured = f.measure_formats(source, f.menu("q8_0"))

    class Bare:
        def __init__(self, fmt):
            self.tensors, self.kept, self.fmt = measured.tensors, measured.kept, fmt

        def format(self, index):
            return self.fmt

    def cut_off(name, array, fmt):
        if name == "c":
            raise KeyboardInterrupt
        return f.quantize(array, fmt)

    one, other = f.BlockFormat(f.nf4(), "channel"), f.BlockFormat(Codebook(np.linspace(-1, 1, 16)), "channel")
    with pytest.raises(KeyboardInterrupt):
        f.quantize_file(source, tmp_path / "q.safetensors", Bare(one), rounding=cut_off, resume="nearest")
    f.quantize_file(source, tmp_path / "q.safetensors", Bare(other), resume="nearest")
    f.quantize_file(source, tmp_path / "whole.safetensors", Bare(other))
    assert (tmp_path / "q.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_information_of_outputs(tmp_path):
    """Of outputs with Gaussian noise the divergence is known: errors of a row add up, which F alone does not see."""
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(5000, 64)) @ (rng.normal(size=(64, 64)) / 8 + 0.5)
    W, noise = rng.normal(size=(24, 64)).astype(np.float32), rng.uniform(0.5, 2, size=24)
    H = inputs.T @ inputs / len(inputs)
    F = np.diag(H) / noise[:, None]
    save_file({"a": W}, tmp_path / "w.safetensors")
    save_file({"a": F}, tmp_path / "f.safetensors")
    save_file({"a": H}, tmp_path / "h.safetensors")
    menu = f.menu("q4_0,q8_0")
    both = f.measure_formats(
        tmp_path / "w.safetensors", menu, tmp_path / "f.safetensors", moments=tmp_path / "h.safetensors"
    )
    alone = f.measure_formats(tmp_path / "w.safetensors", menu, tmp_path / "f.safetensors")
    assert both.unit == alone.unit == "nats"
    for j, fmt in enumerate(menu):
        lost = (f.quantize(W, fmt).dequantize().astype(float) - W) @ inputs.T
        divergence = np.sum((lost**2).mean(1) / noise) / 2
        assert both.score[0, j] == pytest.approx(divergence, rel=1e-5)
        assert abs(alone.score[0, j] / divergence - 1) > 0.02


def _message(call):
    try:
        call()
    except ValueError as error:
        return error


def test_names_that_would_collide(tmp_path):
    x = np.random.default_rng(6).normal(size=(8, 256)).astype(np.float32)
    save_file({"a": x, "a.scales": np.full(64, 5.0), "b": x, "b.offsets": np.arange(3.0)}, tmp_path / "w.safetensors")
    plan = f.choose(f.measure_formats(tmp_path / "w.safetensors", f.menu("q4_0")), 4.5)
    with pytest.raises(ValueError, match="tensor 'a' would be stored under 'a.scales', which is another tensor's name"):
        f.quantize_file(tmp_path / "w.safetensors", tmp_path / "q.safetensors", plan)
    save_file({"b": x, "b.offsets": np.arange(3.0), "n": np.array(3)}, tmp_path / "w.safetensors")
    plan = f.choose(f.measure_formats(tmp_path / "w.safetensors", f.menu("q4_0")), 4.5)
    f.quantize_file(tmp_path / "w.safetensors", tmp_path / "q.safetensors", plan)
    back = f.dequantize_file(tmp_path / "q.safetensors")
    np.testing.assert_array_equal(back["b.offsets"], np.arange(3.0))
    assert back["n"].shape == ()


@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e-5, 1e6, 1e18, 1e30, 1e37])
def test_weights_of_any_size(size, tmp_path):
    """Nothing is NaN, and formats whose range holds the weights err as they do at size 1."""
    x = np.random.default_rng(7).normal(size=(16, 256)).astype(np.float32)
    save_file({"a": (x * np.float32(size)).astype(np.float32)}, tmp_path / "w.safetensors")
    found = f.measure_formats(tmp_path / "w.safetensors", f.menu("all"))
    save_file({"a": x}, tmp_path / "w.safetensors")
    usual = f.measure_formats(tmp_path / "w.safetensors", f.menu("all"))
    assert np.isfinite(found.error).all()
    names = [each.name for each in found.formats]
    for name in ("MXFP4", "NVFP4", "INT4_G64", "INT8_CHANNEL"):
        at = names.index(name)
        if size >= 1e-30:
            np.testing.assert_allclose(found.error[0, at], usual.error[0, at], rtol=0.1)
    plan = f.choose(found, 16.0, pinned={"a": "MXFP4"})
    save_file({"a": (x * np.float32(size)).astype(np.float32)}, tmp_path / "w.safetensors")
    f.quantize_file(tmp_path / "w.safetensors", tmp_path / "q.gguf", plan)
    (tensor,) = GGUFReader(tmp_path / "q.gguf").tensors
    theirs = np.asarray(quants.dequantize(tensor.data, tensor.tensor_type)).reshape(x.shape)
    np.testing.assert_array_equal(theirs, f.quantize(x * np.float32(size), f.standard("MXFP4")).dequantize())


def test_errors_of_bfloat16_are_rounded_as_they_will_be(tmp_path):
    x = np.random.default_rng(8).normal(size=(64, 256)).astype(ml_dtypes.bfloat16)
    f._files.write_safetensors(tmp_path / "w.safetensors", {"a": f._files.Entry(x.shape, x.dtype, lambda: x)})
    plan, errors = f.choose(f.measure_formats(tmp_path / "w.safetensors", f.menu("q8_0")), 8.5), {}
    f.quantize_file(tmp_path / "w.safetensors", tmp_path / "q.safetensors", plan, errors=errors)
    assert errors["a"] == pytest.approx(plan.error[0], rel=1e-9)
