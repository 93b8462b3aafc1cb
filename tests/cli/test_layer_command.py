"""`replicajax layer`: its table, its picture, and the requests it turns down."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import replicajax as rj

L = rj.layers


@pytest.fixture
def files(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 24)) * np.linspace(0.3, 3, 24)
    weights = {f"block.{k}.weight": rng.standard_t(5, size=(40, 24)).astype(np.float32) for k in range(2)}
    save_file(weights | {"norm": np.ones(24, np.float32)}, tmp_path / "w.safetensors")
    L.write_moments(
        tmp_path / "m.safetensors", {name: L.second_moment([X @ rng.normal(size=(24, 24))]) for name in weights}
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


ASK = "layer --weights w.safetensors --moments m.safetensors"


def test_table_and_picture(command, files):
    code, out, err = command(*f"{ASK} --bits 2,4 --measure --figure p.png".split())
    assert (code, err) == (0, "")
    assert (files / "p.png").read_bytes()[:4] == b"\x89PNG"
    lines = out.splitlines()
    assert lines[1].split() == ["layer", "bits", "nearest", "GPTQ", "rotated", "optimum", "limit", "to", "gain"]
    assert sum(line.split()[:1] == ["run"] for line in lines) == 4
    assert "block.1.weight" in out
    assert "norm" not in out


def test_json_is_the_library(command, files):
    code, out, _ = command(*f"{ASK} --bits 3 --only block.1.* --measure --json".split())
    assert code == 0
    (found,) = json.loads(out)["layers"]
    from safetensors.numpy import load_file

    W, H = (load_file(files / name)["block.1.weight"].astype(float) for name in ("w.safetensors", "m.safetensors"))
    book = rj.uniform(3, 0.5860 * 3.5)  # of least error for normal weights: Max 1960
    assert found["gptq"] == pytest.approx(float(L.gptq_error(L.Layer(H, weights=W), book)), rel=1e-3)
    assert found["run"]["gptq"] == pytest.approx(float(L.output_error(L.gptq(W, H, book), W, H)), rel=0.02)
    assert found["limit"] < found["optimum"] < found["rotated"]
    assert (found["outputs"], found["inputs"], found["bits"]) == (40, 24, 3)


def test_scale_of_gptq(command, files):
    errors = {}
    for scale in ("rounding", "gptq"):
        code, out, _ = command(*f"{ASK} --bits 2 --only block.0* --scale {scale} --json".split())
        assert code == 0
        errors[scale] = json.loads(out)["layers"][0]["gptq"]
    assert errors["gptq"] < errors["rounding"]


def test_a_picture_never_replaces_what_is_read(command, files):
    for name in ("w", "m"):
        before = (files / f"{name}.safetensors").read_bytes()
        (files / f"{name}.png").symlink_to(files / f"{name}.safetensors")
        code, out, err = command(*f"{ASK} --figure {name}.png".split())
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "would overwrite" in err
        assert (files / f"{name}.safetensors").read_bytes() == before


def test_a_bug_keeps_its_traceback(command, files, monkeypatch):
    """What numpy or JAX raise is not the request's fault."""
    monkeypatch.setattr("replicajax.cli._layer.report_of", lambda *_, **__: np.zeros(2) + np.zeros(3))
    with pytest.raises(ValueError, match="broadcast"):
        command(*ASK.split())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{ASK} --bits 9", "--bits must be whole numbers from 1 to 8"),
        (f"{ASK} --order up", "--order must be one of natural, descending"),
        (f"{ASK} --damping=-1", "--damping must be finite and not negative"),
        (f"{ASK} --only nothing*", "--only 'nothing*' matches none of 2 layers, the first block.0.weight"),
        ("layer --weights w.safetensors --moments none.npz", "none.npz: No such file"),
        ("layer --weights w.safetensors --moments other.npz", "moments must be named as the weights are"),
        ("layer --weights w.safetensors --moments wrong.npz", "layer 'block.0.weight': weights must be (outputs, 3)"),
        ("layer --weights w.safetensors --moments bad.npz", "layer 'block.0.weight': H must not be NaN"),
    ],
)
def test_one_line_of_refusal(command, files, line, message):
    np.savez(files / "other.npz", other=np.eye(3))
    np.savez(files / "wrong.npz", **{"block.0.weight": np.eye(3)})
    np.savez(files / "bad.npz", **{"block.0.weight": np.full((24, 24), np.nan)})
    code, _, err = command(*line.split())
    assert code == 2
    assert err.count("\n") == 1
    assert message in err
