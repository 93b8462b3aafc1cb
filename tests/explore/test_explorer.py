"""The page without a browser: states and links, numbers against the library, snippets, files, the port."""

import contextlib
import io
import math
import time

import numpy as np
import pytest

pytest.importorskip("bokeh")

from bokeh.document import Document
from typer.testing import CliRunner

import replicajax as rj
from replicajax.cli import _app
from replicajax.cli._request import ProblemError
from replicajax.explore import _budget, _code, _curves, _formats
from replicajax.explore._page import Page
from replicajax.explore._serve import HOST, free_port, make_server
from replicajax.explore._state import CONTROLS, Choice, Span, State, from_query, to_query
from replicajax.explore._table import problem_of, table_of

EXACT = 1e-9


def run(snippet: str) -> dict:
    """What a program leaves."""
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(snippet, names)
    return names


def whole(state: State):
    *_, last = _curves.curve(_curves.task_at(state), state)
    assert last.whole
    return last


def random_state(rng: np.random.Generator) -> State:
    values = {}
    for name, control in CONTROLS.items():
        if isinstance(control, Span):
            values[name] = rng.uniform(control.low, control.high)
            if control.endless and rng.random() < 0.3:
                values[name] = math.inf
        elif isinstance(control, Choice):
            values[name] = str(rng.choice(control.options))
        else:
            values[name] = bool(rng.random() < 0.5)
    return State().moved(**values)


def parsed(query: str) -> dict[str, str]:
    from urllib.parse import parse_qsl

    return dict(parse_qsl(query))


@pytest.mark.parametrize("seed", range(20))
def test_a_link_gives_its_state_back(seed):
    state = random_state(np.random.default_rng(seed))
    assert from_query(parsed(to_query(state))) == (state, [])


def test_the_usual_state_has_an_empty_link():
    assert to_query(State()) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("alpha", "0"),
        ("alpha", "many"),
        ("alpha", "nan"),
        ("noise", "-1"),
        ("bits", "2.5"),
        ("bits", "40"),
        ("width", "inf"),
        ("beta", "-inf"),
        ("loss", "cube"),
        ("breaking", "2"),
        ("tab", "<script>"),
        ("budget", "99"),
    ],
)
def test_a_bad_value_of_a_link_is_said_and_left_out(name, text):
    state, (message,) = from_query({name: text, "noise" if name != "noise" else "alpha": "0.5"})
    assert getattr(state, name) == getattr(State(), name)
    assert (state.noise, state.alpha)[name == "noise"] == 0.5
    assert name in message
    assert text in message


def test_an_unknown_name_of_a_link_is_said():
    state, (message,) = from_query({"colour": "red"})
    assert state == State()
    assert "colour" in message


@pytest.mark.parametrize(
    "state",
    [State(), State(alpha=0.7, bits=4, beta=40.0), State(alpha=1.2, bits=3, beta=math.inf), State(noise=0.0, bits=1)],
)
def test_the_curve_is_that_of_solve(state):
    found, task = whole(state), _curves.task_at(state)
    for i in range(0, found.width.size, 8):
        one = rj.solve(task, rj.uniform(state.bits, found.width[i]), state.beta)
        if one.converged:
            assert found.error[i] == pytest.approx(float(one.generalization_error), rel=EXACT)
            assert found.stable[i] == bool(one.stable)
        else:
            assert np.isnan(found.error[i])


def test_a_growing_curve_spans_all_widths_at_once():
    state = State(bits=5, beta=2.0)
    parts = list(_curves.curve(_curves.task_at(state), state))
    assert [part.width.size for part in parts] == [13, 25, 37, 49]
    assert all(part.width[0] == 0.1 and part.width[-1] == pytest.approx(6.0) for part in parts)


def test_lines_of_both_kinds_meet_and_leave_nothing_out():
    drawn = _curves.split(whole(State()))
    both = np.isfinite(drawn["stable"]) & np.isfinite(drawn["unstable"])
    assert (np.isfinite(drawn["stable"]) | np.isfinite(drawn["unstable"])).all()
    assert 1 <= both.sum() <= 2


def test_what_did_not_converge_is_not_drawn():
    sound = np.array([True, False, True])
    curve = _curves.Curve(np.ones(3), np.where(sound, 0.5, np.nan), np.array([True, True, False]), True)
    drawn = _curves.split(curve)
    assert np.isnan(drawn["stable"][1])
    assert np.isnan(drawn["unstable"][1])


@pytest.mark.parametrize("state", [State(), State(alpha=3.0, bits=1, beta=math.inf)])
def test_the_snippet_of_the_curve_gives_its_numbers(state):
    names, found = run(_code.curve(state)), whole(state)
    np.testing.assert_allclose(names["width"], found.width[np.isfinite(found.error)], rtol=1e-14)
    np.testing.assert_allclose(names["error"], found.error[np.isfinite(found.error)], rtol=EXACT)
    best = _curves.best_width(_curves.task_at(state), state)
    assert best is not None
    assert float(names["best"].width) == pytest.approx(best[0], rel=EXACT)
    assert float(names["ridge"]) == pytest.approx(_curves.ridge_error(_curves.task_at(state)), rel=EXACT)


def test_the_snippet_of_the_codebook_gives_its_numbers():
    state = State(bits=3, width=2.0, noise=0.2)
    names, found = run(_code.codebook(state)), _curves.point(_curves.task_at(state), state)
    np.testing.assert_allclose(names["usage"], found.usage, rtol=EXACT)
    assert names["rate"] == pytest.approx(float(found.rate), rel=EXACT)


def test_the_snippet_of_the_map_gives_its_numbers(monkeypatch):
    monkeypatch.setattr(_curves, "MAP_ALPHAS", np.geomspace(0.2, 8.0, 4))
    monkeypatch.setattr(_curves, "MAP_WIDTHS", np.geomspace(0.1, 6.0, 5))
    *_, found = _curves.phase_map(_curves.task_at(State()), State())
    names = run(_code.phase_map(State()).replace("8.0, 40", "8.0, 4").replace("6.0, 51", "6.0, 5"))
    np.testing.assert_allclose(names["error"], found.error, rtol=EXACT)
    np.testing.assert_allclose(names["replicon"], found.replicon, rtol=1e-7)


def test_the_snippet_of_a_format_gives_its_numbers():
    state = State(element="nf4", law="laplace")
    names = run(_code.weight_format(state))
    row = next(_formats.chosen_and_family(state)).chosen
    assert row is not None
    assert names["rel"] == pytest.approx(row.error, rel=EXACT)
    assert (names["bits"], names["merit"]) == (row.bits, pytest.approx(row.figure_of_merit, rel=EXACT))


@pytest.mark.parametrize("seed", range(6))
def test_snippets_of_any_state_are_programs(seed):
    state = random_state(np.random.default_rng(seed))
    for made in (_code.curve, _code.codebook, _code.phase_map, _code.weight_format, _code.budget):
        compile(made(state), "snippet", "exec")
    compile(_code.curve(state, ("it's.csv", 'a "label"')), "snippet", "exec")


def table(rows: int = 40) -> bytes:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 3))
    y = X @ [1.0, -0.5, 0.2] + 0.3 * rng.normal(size=rows)
    lines = ["a,b,c,price"] + [",".join(f"{v:.6f}" for v in (*x, each)) for x, each in zip(X, y, strict=True)]
    return "\n".join(lines).encode()


def test_the_curve_of_a_file_is_that_of_its_rows(tmp_path, monkeypatch):
    read = table_of("prices.csv", table())
    assert read.last == "price"
    problem = problem_of(read, "price")
    *_, found = _curves.curve(problem.task, State())
    one = rj.solve(problem.task, rj.uniform(2, found.width[30]), 10.0)
    assert found.error[30] == pytest.approx(float(one.generalization_error), rel=EXACT)
    assert _curves.ridge_error(problem.task) is not None
    (tmp_path / "prices.csv").write_bytes(table())
    monkeypatch.chdir(tmp_path)
    names = run(_code.curve(State(), ("prices.csv", "price")))
    np.testing.assert_allclose(names["error"], found.error[np.isfinite(found.error)], rtol=EXACT)


@pytest.mark.parametrize(
    ("content", "target", "wanted"),
    [
        (b"", None, "empty"),
        (b"\x00\x01\x02\xff\xfe", None, "x.csv"),
        (b"a\n1\n2\n", None, "at least two distinct columns"),
        (b"a,b\n", "b", "no rows"),
        (b"a,b\n1,2\n3,4\n", "b", "at least 8 rows"),
        (b"a,b\n" + b"1,2\nx,4\n" * 5, "b", "column a must be numbers"),
        (b"a,b\n" + b"1,2\n,4\n" * 5, "b", "missing or infinite"),
        (b"a,b\n" + b"1,2\n2,2\n" * 5, "b", "constant"),
        (b"a,b\n" + b"1,2,3\n2,3,4\n" * 5, "b", "more fields than the header"),
    ],
)
def test_a_bad_file_is_one_clear_message(content, target, wanted):
    with pytest.raises(ProblemError) as refused:
        problem_of(table_of("x.csv", content), target or "b")
    assert wanted in str(refused.value)
    assert "x.csv" in str(refused.value)
    assert "--" not in str(refused.value)


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(Page, "later", lambda self, function: function())
    made = Page(Document(), {"bits": "3", "alpha": "nonsense"})
    yield made
    made.close()


def settled(page: Page, done, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.01)
    assert done()


def test_a_page_follows_its_sliders(page):
    tab = page.tabs["learning"]
    assert "nonsense" in page.warning.text
    settled(page, lambda: len(tab.line.data["width"]) == 49)
    tab.sliders["alpha"].value = math.log10(4.0)
    assert page.panels.tags[0] == "alpha=4&bits=3"
    expected = whole(State(alpha=4.0, bits=3))
    settled(page, lambda: np.allclose(tab.line.data["error"], expected.error, rtol=EXACT))
    tab._arrives("filename", "", "x.csv")
    tab._arrives("value", "", "YSxiCjEsMgo=")  # a,b and 1,2
    settled(page, lambda: "at least 8 rows" in tab.message.text)


def test_the_server_is_of_this_machine_alone():
    port = free_port(None)
    server, _ = make_server(port)
    try:
        assert HOST == "127.0.0.1"
        assert {bound.getsockname()[0] for bound in server._http._sockets.values()} == {HOST}
        assert server._tornado.websocket_origins == {f"{HOST}:{port}", f"localhost:{port}"}
        with pytest.raises(ProblemError, match=f"--port {port} cannot be used"):
            free_port(port)
    finally:
        server.stop()


def test_without_bokeh_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_app, "find_spec", lambda name: None)
    result = CliRunner().invoke(_app.app, ["explore"])
    assert isinstance(result.exception, ProblemError)
    assert "replicajax[explore]" in str(result.exception)


@pytest.mark.slow
def test_the_snippet_of_a_budget_gives_its_numbers():
    names = run(_code.budget(State(budget=10.0)))
    best, neighbours = _budget.budget(State(budget=10.0))
    assert isinstance(best, rj.search._budget.Split)
    assert isinstance(neighbours, _budget.Neighbours)
    assert names["bits"] == best.bits[0]
    assert names["risk"] == pytest.approx(float(best.risk.total), rel=1e-6)
    at = int(best.bits[0]) - _budget.LEAST
    assert neighbours.at_bits[at] == pytest.approx(float(best.risk.excess), rel=1e-2)  # steps relaxed there
