"""Commands on the pages: every one parses; the slow test runs each, in order, on files of the names they use."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from snippets import PAGES, ROOT, blocks

import replicajax as rj
from replicajax.cli._app import app

PER_PAGE = {
    str(page.relative_to(ROOT)): [
        line.partition("  #")[0].strip()
        for block in blocks(page)
        if block.language == "sh"
        for line in block.source.splitlines()
        if line.startswith("replicajax ")
    ]
    for page in PAGES
}
PER_PAGE = {name: lines for name, lines in PER_PAGE.items() if lines}


@pytest.mark.parametrize("name", PER_PAGE)
def test_parses(name):
    for line in PER_PAGE[name]:
        command, words = typer.main.get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context(line, words)


def files(folder: Path) -> None:
    """What the pages' commands read."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 12))
    price = rows @ rng.normal(size=12) + 2.0 * rng.normal(size=400)
    lines = [",".join(f"{x:.6f}" for x in [*row, label]) for row, label in zip(rows, price, strict=True)]
    (folder / "table.csv").write_text("a,b,c,d,e,f,g,h,i,j,k,l,price\n" + "\n".join(lines) + "\n")
    shapes = {
        "model.mlp.up.weight": (64, 64),
        "model.self_attn.q_proj.weight": (64, 64),
        "model.mlp.down.weight": (32, 64),
    }
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors")
    save_file({name: np.abs(w) for name, w in weights.items()}, folder / "fisher.safetensors")
    (folder / "checkpoint").mkdir()
    save_file(weights, folder / "checkpoint" / "model.safetensors")
    moments = {name: rj.layers.SecondMoment() for name in weights}
    for moment in moments.values():
        moment.add(rng.normal(size=(300, 64)))
    rj.layers.write_moments(folder / "moments.safetensors", moments)
    (folder / "problem.toml").write_text("alpha = 2.0\nnoise = 0.1\nbeta = 5.0\n")
    (folder / "machine.toml").write_text("bits = [4.0, 8.0, 16.0]\nprice = [0.3, 0.5, 1.0]\n")
    law = rj.scaling.Law(3.0, 0.6, 2.0, 0.35, 0.01, 0.0, True)
    M, N = rng.uniform(100, 1e5, 30), rng.uniform(1e4, 1e8, 30)
    runs = [f"{m:.8g},{n:.8g},{float(law.excess(m, n)) + 0.1:.10g}" for m, n in zip(M, N, strict=True)]
    (folder / "runs.csv").write_text("size,steps,risk\n" + "\n".join(runs) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", PER_PAGE)
def test_runs(name, tmp_path):
    files(tmp_path)
    for line in PER_PAGE[name]:
        words = shlex.split(line)[1:]
        if words[0] == "explore":
            continue  # it serves until it is stopped: tests/explore
        done = subprocess.run(
            [Path(sys.executable).parent / "replicajax", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
