"""Plans for those who quantize, scores that someone measured, and codes that GPTQ chose."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from replicajax import formats as f
from replicajax import layers as L


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(0)
    names = (
        "model.layers.0.q_proj.weight",
        "model.layers.0.k_proj.weight",
        "model.layers.1.q_proj.weight",
        "head.weight",
    )
    return {name: rng.standard_t(5, size=(64, 256)).astype(np.float32) * 2.0**i for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipes") / "w.safetensors"
    save_file(weights, path)
    return path


def plan(file, pins: dict[str, str]):
    measured = f.measure_formats(file, f.menu(",".join({*pins.values(), "bf16"})))
    return f.choose(measured, 16.0, pinned=pins)


def test_qwix_takes_the_first_rule_that_matches_a_whole_path(file, weights):
    pins = dict(zip(weights, ("INT4_G128", "INT4_G128_ZERO", "INT4_G128", "NF4"), strict=True))
    rules = json.loads(f.recipe(plan(file, pins), "qwix"))

    def rule_of(path):
        return next((rule for rule in rules if re.fullmatch(rule["module_path"], path)), None)

    symmetric = rule_of("model/layers/0/q_proj")
    assert symmetric is not None
    assert (symmetric["weight_qtype"], symmetric["tile_size"]) == ("int4", 128)
    assert symmetric["weight_calibration_method"] == "absmax"
    assert rule_of("model/layers/1/q_proj") == symmetric
    assert rule_of("model/layers/0/k_proj")["weight_calibration_method"] == "minmax"
    assert rule_of("head") == {"module_path": "head", "weight_qtype": "nf4", "tile_size": 64}
    assert rule_of("model/layers/2/q_proj") is None
    assert rule_of("model/layers/0/q_projx") is None


def test_compressed_tensors_groups(file, weights):
    pins = dict(zip(weights, ("INT4_G128_ZERO", "FP8_E4M3_CHANNEL", "NVFP4", "BF16"), strict=True))
    made = json.loads(f.recipe(plan(file, pins), "compressed-tensors"))["quantization_config"]
    assert made["quant_method"] == "compressed-tensors"
    assert made["ignore"] == ["head"]
    of = {}
    for group in made["config_groups"].values():
        for target in group["targets"]:
            assert target.startswith("re:")
            of |= {n: group["weights"] for n in weights if re.match(target[3:], n.removesuffix(".weight"))}
    first, second, third = (of[name] for name in list(weights)[:3])
    assert first == {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 128}
    assert second == {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
    assert third["strategy"] == "tensor_group"
    assert third["group_size"] == 16
    assert len(of) == 3


def test_llama_and_plain(file, weights):
    pins = dict(zip(weights, ("Q4_0", "Q8_0", "MXFP4", "Q4_1"), strict=True))
    made = plan(file, pins)
    lines = f.recipe(made, "llama").splitlines()
    for name, fmt in pins.items():
        matches = [line.rpartition("=") for line in lines if re.search(line.rpartition("=")[0], name)]
        assert [after for _, _, after in matches] == [fmt.lower()]
    assert json.loads(f.recipe(made))["formats"] == pins
    with pytest.raises(ValueError, match="recipe for qwix must be of formats that it has, got MXFP4, Q4_0, Q4_1, Q8_0"):
        f.recipe(made, "qwix")
    with pytest.raises(
        ValueError, match="recipe must be for one of replicajax, llama, qwix, compressed-tensors, got 'x'"
    ):
        f.recipe(made, "x")


def test_scores_of_ones_own(file, weights, tmp_path):
    measured = f.measure_formats(file, f.menu("int4_g128,int8_channel,nf4"))
    names = [t.name for t in measured.tensors]
    path = tmp_path / "scores.csv"

    def read(*rows: str, head: str = "tensor,format,score"):
        path.write_text("\n".join([head, *rows]) + "\n")
        return f.read_scores(path, measured)

    rows = [f"{name},INT4_G128,{2.0**-i}" for i, name in enumerate(names)]
    found = read(*rows, f"{names[0]},nf4,9")
    i, j, k = ([each.name for each in measured.formats].index(x) for x in ("INT4_G128", "INT8_CHANNEL", "NF4"))
    assert found.unit == "measured"
    assert found.score[1, i] == 0.5
    # In proportion to squared errors where nothing was measured; the mean of logarithms where two were.
    assert found.score[1, j] == pytest.approx(0.5 * (measured.error[1, j] / measured.error[1, i]) ** 2, rel=1e-12)
    assert found.score[0, k] == 9
    both = 3 * measured.error[0, j] ** 2 / (measured.error[0, i] * measured.error[0, k])
    assert found.score[0, j] == pytest.approx(both, rel=1e-12)
    assert f.choose(found, 5.0).gap == 0
    for rows_, message in (
        (rows[:3], "must have every tensor, got none of " + names[3]),
        ([*rows, "none,NF4,1"], "line 6: tensor must be one of the file"),
        ([*rows, f"{names[0]},Q4_0,1"], "line 6: format must be one of the menu"),
        ([*rows, f"{names[0]},NF4,-1"], "line 6: score must be a positive number, got '-1'"),
        ([*rows, f"{names[0]},NF4"], "line 6: score must be a positive number, got ''"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            read(*rows_)
    with pytest.raises(ValueError, match="must have the columns tensor, format, score, got a, b"):
        read("1,2", head="a,b")


def test_codes_by_gptq_in_a_file(file, weights, tmp_path):
    """Less of the outputs is lost than to nearest, in the very scales, and what is written is what was measured."""
    rng = np.random.default_rng(1)
    roots = {name: rng.normal(size=(256, 300)) * np.linspace(0.1, 3, 256)[:, None] for name in list(weights)[:3]}
    moments = {name: X @ X.T / 300 for name, X in roots.items()}
    L.write_moments(tmp_path / "h.safetensors", moments)
    menu, rounding = f.menu("int4_g128,q4_0,q4_1"), L.gptq_rounding(moments)
    nearest = f.measure_formats(file, menu, moments=tmp_path / "h.safetensors")
    by_gptq = f.measure_formats(file, menu, moments=tmp_path / "h.safetensors", rounding=rounding)
    codebooks = [fmt.name != "Q4_1" for fmt in menu]
    known = [t.name in moments for t in by_gptq.tensors]
    ratio = by_gptq.score / nearest.score
    assert (ratio[np.ix_(known, codebooks)] < 0.9).all()
    fmt = f.standard("INT4_G128")
    for i, tensor in enumerate(by_gptq.tensors):
        if tensor.name in moments:
            layer = L.Layer(moments[tensor.name], weights=weights[tensor.name])
            expected = L.gptq_error(layer, fmt.rounding) / L.rounding_error(layer, fmt.rounding)
            assert ratio[i, list(menu).index(fmt)] == pytest.approx(float(expected), rel=0.05)
    np.testing.assert_array_equal(ratio[~np.array(known)], 1)
    np.testing.assert_array_equal(ratio[:, ~np.array(codebooks)], 1)
    chosen, errors = f.choose(by_gptq, 4.6), {}
    f.quantize_file(file, tmp_path / "q.safetensors", chosen, errors=errors, rounding=rounding)
    back = f.dequantize_file(tmp_path / "q.safetensors")
    for tensor, fmt, error in zip(chosen.tensors, chosen.formats, chosen.error, strict=True):
        assert errors[tensor.name] == pytest.approx(error, rel=1e-6)
        if tensor.name in moments and fmt.name != "Q4_1":
            expected = L.gptq_tensor(weights[tensor.name], moments[tensor.name], fmt.rounding).dequantize()
            np.testing.assert_array_equal(back[tensor.name], expected)
