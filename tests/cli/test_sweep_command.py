"""`replicajax phase-diagram` and `replicajax plot`."""

import json

import pytest

import replicajax as rj

AXES = "--alpha", "0.5:3:5", "--width", "0.5:3:9", "--bits", "1", "--beta", "5"


def test_sweep_store_and_plot(command, tmp_path):
    store, figure = tmp_path / "s.zarr", tmp_path / "s.png"
    code, out, _ = command("phase-diagram", *AXES, "--store", store, "--figure", figure)
    assert code == 0
    assert "45 points, 45 converged" in out
    assert "least generalization error" in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert rj.open_sweep(store).generalization_error.dims == ("alpha", "width")

    code, out, _ = command("phase-diagram", *AXES, "--store", store, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["points"] == report["converged"] == 45
    assert report["axes"]["alpha"] == [0.5, 3.0, 5]

    code, out, _ = command(
        "plot", store, "--figure", tmp_path / "line.svg", "--at", "alpha=1", "--variable", "replicon"
    )
    assert code == 0
    assert "alpha 1.125" in out

    code, _, err = command("phase-diagram", *AXES[:-1], "6", "--store", store)
    assert code == 2
    assert "holds a different sweep (fixed.beta was 5.0, is 6.0)" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("phase-diagram", "--alpha", "0.3:4", "--width", "1"), "--alpha must be a number, a list 1,2,4 or a range"),
        (
            ("phase-diagram", "--alpha", "0.3:4:5", "--width", "1", "--bits", "0-2"),
            "--bits must be whole numbers from 1 to 16",
        ),
        (("phase-diagram", "--alpha", "1", "--width", "1"), "needs at least one axis"),
        (("phase-diagram", "--alpha", "-1:1:3", "--width", "1"), "--alpha must be positive and finite, got -1.0"),
        (("phase-diagram", "--alpha", "1:2:3", "--width", "1", "--figure", "x.txt"), "--figure must end in"),
        (("plot", "nowhere.zarr", "--figure", "x.png"), "nowhere.zarr does not exist; a saved sweep is wanted"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    code, out, err = command(*arguments)
    assert code == 2
    assert not out
    assert message in " ".join(err.split())
