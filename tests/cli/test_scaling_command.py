"""`replicajax scaling`: what it prints, what it refuses."""

import json

import numpy as np
import pytest

from replicajax import scaling


def test_risk(command, tmp_path):
    figure = tmp_path / "risk.png"
    code, text, _ = command(
        *("scaling", "risk", "--size", 50, "--bits", "4,inf", "--steps", "1e3,1e9", "--figure", figure, "--json")
    )
    assert code == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    rows = json.loads(text)["risks"]
    assert [(row["bits"], row["steps"]) for row in rows][:2] == [(4.0, 1000), (4.0, 10**9)]
    problem = scaling.power_law(50, 1.5, noise=0.1)
    for row in rows[:2]:
        precision = scaling.of_bits("additive", 4, reach=4.0)
        risk = scaling.sgd_risk(problem, precision, row["steps"], 0.5 * scaling.step_limit(problem, precision))
        np.testing.assert_allclose(row["total"], risk.total, rtol=1e-12)
    code, text, _ = command("scaling", "risk", "--size", 50, "--bits", "4", "--steps", "1e3", "--step", 1.2)
    assert code == 0
    assert "unstable" in text


def test_risk_of_a_csv(command, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    path = tmp_path / "table.csv"
    rows = np.column_stack([X, X @ [1, 2, 3] + 0.1 * rng.standard_normal(200)])
    np.savetxt(path, rows, delimiter=",", header="a,b,c,y", comments="")
    code, text, _ = command(
        "scaling", "risk", "--data", path, "--target", "y", "--bits", "inf", "--steps", "1e6", "--json"
    )
    assert code == 0
    report = json.loads(text)
    assert report["size"] == 3
    np.testing.assert_allclose(report["risks"][0]["total"], 0.01, rtol=0.2)


def test_fit_of_runs(command, tmp_path):
    M, N = (x.ravel() for x in np.meshgrid(np.geomspace(100, 1e5, 4), np.geomspace(1e4, 1e8, 4)))
    law = scaling.Law(3.0, 0.6, 2.0, 0.35, 0.0, 0.0, True)  # type: ignore[arg-type]
    path = tmp_path / "runs.csv"
    rows = np.column_stack([M, N, 0.1 + np.asarray(law.excess(M, N))])
    np.savetxt(path, rows, delimiter=",", header="size,steps,risk", comments="", fmt="%.17g")
    code, text, _ = command("scaling", "fit", path, "--noise", 0.1, "--json")
    found = json.loads(text)
    assert code == 0
    np.testing.assert_allclose([found["model_exponent"], found["data_exponent"]], [0.6, 0.35], rtol=1e-4)


@pytest.mark.slow
def test_allocate(command, tmp_path):
    costs = tmp_path / "machine.toml"
    costs.write_text("bits = [2, 16]\nprice = [0.02, 1.0]\nmemory = 10\n")
    figure = tmp_path / "frontier.png"
    code, text, _ = command(
        *("scaling", "allocate", "--budget", "1e8,1e9", "--costs", costs, "--bits", "2-16", "--figure", figure)
    )
    assert code == 0
    assert "features M" in text
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("risk", "--kind", "fp8"), "kind must be one of additive, multiplicative, elementwise"),
        (("risk", "--bits", "four"), "--bits must be numbers from 1 on, or inf, separated by commas"),
        (("risk", "--sites", "weights"), "--sites must be all or some of data, label"),
        (("risk", "--schedule", "cosine"), "--schedule must be one of geometric, constant"),
        (("risk", "--exponent", 1), "--exponent must be above 1"),
        (("risk", "--data", "nowhere.csv", "--target", "y"), "nowhere.csv does not exist"),
        (("risk", "--figure", "risk.txt"), "--figure"),
        (("fit", "nowhere.csv"), "nowhere.csv does not exist"),
        (("allocate", "--costs", "nowhere.toml"), "nowhere.toml"),
        (("allocate", "--bits", "8"), "--bits must be a range such as 2-12"),
        (("allocate", "--budget", "1"), "budget must be at least"),
    ],
)
def test_refusals(command, arguments, message):
    code, _, error = command("scaling", *arguments)
    assert code == 2
    assert message in error


def test_fit_needs_its_columns(command, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("size,loss\n1,2\n3,4\n")
    code, _, error = command("scaling", "fit", path)
    assert code == 2
    assert "missing: steps, risk" in error
