"""allocate, recommend, dequantize and formats --format on weight files, as a user would call them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

from replicajax import formats, layers
from replicajax.cli import _app
from replicajax.cli._allocate import _groups


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    weights = {
        "model.embed.weight": rng.standard_t(4, size=(256, 256)).astype(np.float32),
        "model.q_proj.weight": (0.1 * rng.normal(size=(64, 256))).astype(np.float32),
        "model.k_proj.weight": (0.4 * rng.normal(size=(64, 256))).astype(np.float32),
        "model.norm.weight": np.ones(256, np.float32),
    }
    save_file(weights, tmp_path / "w.safetensors")
    save_file({k: np.square(x) * 1e-4 for k, x in weights.items()}, tmp_path / "fisher.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_budget_a_file_and_back(command, folder):
    line = "allocate w.safetensors --bits 4.5 --quantize q.safetensors --recipe r.json --figure f.png"
    code, out, err = command(*line.split())
    assert (code, err) == (0, "")
    for said in (
        "proven least",
        "best single format",
        "left as they are: 1 tensors",
        "actual Rel against predicted: 0.00%",
    ):
        assert said in " ".join(out.split())
    recipe = json.loads((folder / "r.json").read_text())
    assert set(recipe["formats"]) == {"model.embed.weight", "model.q_proj.weight", "model.k_proj.weight"}
    assert recipe["mean_bits"] <= 4.5
    assert (folder / "f.png").stat().st_size > 10_000
    code, out, _ = command("dequantize", "q.safetensors", "back.safetensors")
    assert code == 0
    back = load_file("back.safetensors")
    for name, x in formats.dequantize_file("q.safetensors").items():
        np.testing.assert_array_equal(back[name], x)


def test_gguf_ties_and_pins(command, folder):
    line = (
        "allocate w.safetensors --budget 60KB --pin *embed*=q4_0 --tie *.{q,k}_proj.* --quantize q.gguf --recipe r.txt"
    )
    code, out, err = command(*line.split(), "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    chosen = {row["tensor"]: row["format"] for row in found["tensors"]}
    assert chosen["model.embed.weight"] == "Q4_0"
    assert chosen["model.q_proj.weight"] == chosen["model.k_proj.weight"]
    assert found["bytes"] <= 60_000
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader("q.gguf").tensors}
    assert {name: kinds[name] for name in chosen} == chosen
    assert (folder / "r.txt").read_text().splitlines()[0].startswith("^model\\.")
    assert {line.partition("=")[2] for line in (folder / "r.txt").read_text().split()} == {
        x.lower() for x in chosen.values()
    }


def test_recipes_scores_and_gptq(command, folder):
    line = "allocate w.safetensors --bits 5 --recipe r.json --recipe-for"
    code, _, err = command(*line.split(), "compressed-tensors")
    assert (code, err) == (0, "")
    assert "quantization_config" in json.loads((folder / "r.json").read_text())
    names = ("model.embed.weight", "model.q_proj.weight", "model.k_proj.weight")
    (folder / "s.csv").write_text("tensor,format,score\n" + "".join(f"{name},Q8_0,{1e-3}\n" for name in names))
    code, out, _ = command("allocate", "w.safetensors", "--scores", "s.csv", "--menu", "gguf", "--bits", "5", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["unit"] == "measured"
    rng = np.random.default_rng(1)
    X = rng.normal(size=(256, 300)) * np.linspace(0.1, 3, 256)[:, None]
    layers.write_moments(folder / "h.safetensors", {name: X @ X.T / 300 for name in names})
    line = (
        "allocate w.safetensors --moments h.safetensors --menu int4_g128,q8_0 --bits 5 --quantize q.safetensors --json"
    )
    lost = []
    for more in ([], ["--gptq"]):
        code, out, _ = command(*line.split(), *more)
        assert code == 0
        found = json.loads(out)
        lost.append(found["divergence"])
        for row in found["tensors"]:
            assert found["actual_error"][row["tensor"]] == pytest.approx(row["relative_error"], rel=1e-5)
    assert lost[1] < 0.9 * lost[0]
    for line, message in (
        ("--recipe r.json --recipe-for none", "recipe must be for one of replicajax, llama, qwix, compressed-tensors"),
        ("--recipe-for qwix", "--recipe-for qwix needs --recipe FILE"),
        (
            "--menu q4_0,int4_g128 --recipe r.json --recipe-for qwix",
            "--menu must be of formats that qwix has, got Q4_0",
        ),
        ("--gptq", "--gptq needs --moments"),
        ("--scores s.csv --moments h.safetensors", "--scores says what errors cost by itself, got --moments"),
        ("--scores none.csv", "--scores none.csv is not a file"),
    ):
        code, _, err = command("allocate", "w.safetensors", *line.split())
        assert code != 0
        assert message in " ".join(err.split())
        assert len(err.strip().splitlines()) == 1


def test_ties_are_of_the_place_that_matches():
    names = ["blocks.0.q_proj", "blocks.0.k_proj", "layers.1.w1", "layers.1.w3", "layers.3.w1", "layers.3.w3", "v_proj"]
    assert _groups(names, ["*.{q,k,v}_proj", "*.w{1,3}"]) == [0, 0, 2, 2, 4, 4, 6]
    assert _groups(["a", "b", "c"], ["{a,b}", "{b,c}"]) == [0, 0, 0]


def test_more_and_less_are_of_the_same_request(command, folder):
    """Pinned tensors stay so: more bits never lose more, fewer never less."""
    code, out, _ = command("allocate", "w.safetensors", "--bits", "7", "--pin", "*q_proj*=bf16", "--menu", "gguf")
    assert code == 0
    less, more = (float(x.split()[2]) for x in out.partition("would do: ")[2].split("that")[0].split(", "))
    assert more < 1 < less


def test_fisher_information_has_a_verdict(command, folder):
    save_file({k: x * 1e6 for k, x in load_file("fisher.safetensors").items()}, "loud.safetensors")
    for fisher, said in (("fisher", "small enough for second order"), ("loud", "outside the quadratic regime")):
        code, out, _ = command("allocate", "w.safetensors", "--fisher", f"{fisher}.safetensors")
        assert code == 0
        assert said in " ".join(out.split())
        assert "predicted KL" in out


def test_recommend(command, folder):
    code, out, err = command("recommend", "w.safetensors", "--figure", "f.png")
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines()[:1]] == ["small"]
    for said in ("safe: ", "watch: ", "best choices"):
        assert said in out
    code, out, _ = command("recommend", "w.safetensors", "--json")
    found = json.loads(out)
    assert len(found["advice"]) == 3
    assert found["plans"][0]["mean_bits"] < found["plans"][1]["mean_bits"]


def test_deployable_formats(command, folder):
    code, out, _ = command("formats", "--format", "mxfp4,nvfp4,q4_0,fp8_e4m3", "--json")
    found = {row["name"].split(",")[0]: row for row in json.loads(out)["formats"]}
    assert code == 0
    assert found["MXFP4"]["error"] == pytest.approx(0.114973, abs=1e-6)
    assert found["FP8_E4M3"]["bits"] == 8
    code, out, _ = command("formats", "--format", "q4_0,q8_0", "--weights", "w.safetensors")
    assert code == 0
    assert "w.safetensors" in out
    assert command("formats", "--weights", "w.safetensors")[0] == 2


def test_nothing_is_lost(command, folder):
    """Weights of sixteen bits, kept so: no number divides by the error."""
    save_file({"a": np.random.default_rng(1).normal(size=(64, 64)).astype(np.float16)}, "half.safetensors")
    for line in ("allocate half.safetensors --bits 16 --quantize q.safetensors", "recommend half.safetensors"):
        code, out, err = command(*line.split(), "--menu", "f16")
        assert (code, err) == (0, "")
        assert "nan" not in out


def test_outputs_are_counted(command, folder):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(400, 256))
    save_file({"model.q_proj.weight": X.T @ X / 400}, "moments.safetensors")
    code, out, _ = command("allocate", "w.safetensors", "--moments", "moments.safetensors", "--figure", "f.png")
    assert code == 0
    assert "sum of relative output errors" in out
    assert "remark" not in out
    save_file({"other": np.eye(3)}, "moments.safetensors")
    code, _, err = command("allocate", "w.safetensors", "--moments", "moments.safetensors")
    assert code == 2
    assert "got no name in common" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("allocate w.safetensors --budget 3cups", "--budget must be bits per weight or a size"),
        ("allocate w.safetensors --budget 1KB", "size must be at least"),
        ("allocate w.safetensors --bits 1.5", "mean_bits must be at least"),
        ("allocate w.safetensors --bits 4 --budget 4bits", "either --bits or --budget"),
        ("allocate w.safetensors --menu q9", "menu must be one of gguf, mx, int, all, sparse"),
        ("allocate w.safetensors --pin nothing=Q8_0", "matches none of 3 tensors"),
        ("allocate w.safetensors --pin *=Q9", "pinned must map to a format of the menu"),
        ("allocate w.safetensors --tie zz{a,b}", "--tie zz{a,b} matches none of 3 tensors"),
        ("allocate w.safetensors --tie *", "--tie must name alternatives in braces"),
        ("allocate w.safetensors --menu mx --quantize q.gguf", "needs --menu gguf"),
        ("allocate . --quantize q.gguf", "must hold one *.safetensors.index.json"),
        ("dequantize w.safetensors x.safetensors", "holds no codes of replicajax"),
        ("recommend missing.safetensors", "missing.safetensors"),
    ],
)
def test_requests_that_are_refused(command, folder, line, said):
    code, out, err = command(*line.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not list(folder.glob("q.*"))


def test_a_package_that_is_missing(command, folder, monkeypatch):
    monkeypatch.setattr(_app, "find_spec", lambda name: None)
    code, out, err = command("allocate", "w.safetensors", "--quantize", "q.gguf")
    assert (code, out) == (2, "")
    assert "needs the package gguf: pip install 'replicajax[gguf]'" in " ".join(err.split())
    monkeypatch.setitem(sys.modules, "gguf", None)
    plan = formats.choose(formats.measure_formats("w.safetensors", formats.menu("gguf")), 5.0)
    with pytest.raises(ImportError, match="a .gguf file needs the package gguf"):
        formats.quantize_file("w.safetensors", "q.gguf", plan)


_RUN = """
import atexit, sys
from pathlib import Path
from replicajax.cli import main
atexit.register(lambda: print(Path("/proc/self/status").read_text(), file=sys.stderr))
sys.argv = ["replicajax", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_two_gigabytes_in_little_memory_and_after_a_kill(tmp_path):
    """Shards of 1 GB; killed half-way the old file is there, and the same command ends as if nothing had been."""
    rng, names = np.random.default_rng(0), [f"layer.{k}" for k in range(32)]
    large = 8192 * 2048
    for shard in range(2):
        tensors = {n: rng.standard_normal((8192, 2048), np.float32) * (k + 1) for k, n in enumerate(names[shard::2])}
        save_file(tensors, tmp_path / f"m-{shard}.safetensors")
    place = {name: f"m-{k % 2}.safetensors" for k, name in enumerate(names)}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    line = [
        sys.executable,
        "-c",
        _RUN,
        "allocate",
        str(tmp_path),
        "--menu",
        "q4_0,q5_0,q8_0",
        "--bits",
        "6",
        "--quantize",
    ]
    ran = subprocess.run([*line, str(tmp_path / "whole.safetensors")], check=True, capture_output=True, text=True)
    peak = 1024 * int(next(x for x in ran.stderr.splitlines() if x.startswith("VmHWM")).split()[1])
    print(f"peak {peak / 1e6:.0f} MB for tensors of {4 * large / 1e6:.0f} MB")
    assert peak < 1.5 * 3 * 4 * large + 500e6  # a tensor, its codes, and what they stand for
    target = tmp_path / "killed.safetensors"
    target.write_bytes(b"what was there")
    running = subprocess.Popen([*line, str(target)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".killed.*.part")):
        assert running.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert target.read_bytes() == b"what was there"
    subprocess.run([*line, str(target)], check=True, capture_output=True)
    assert target.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
