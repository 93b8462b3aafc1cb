"""`help()` of what is public fits a screen, and the examples in docstrings run."""

import ast
import inspect
import re
import textwrap
from importlib import import_module

import pytest

import replicajax as rj

ROOMS = (
    *("losses", "distributions", "models", "replica", "amp", "formats", "layers"),
    *("scaling", "dynamics", "search", "sweep", "trials", "plot"),
)
_EXAMPLE = re.compile(r"(?:^    import replicajax.*\n(?:^    .*\n)*)", re.MULTILINE)


def public():
    for module in (rj, *(import_module(f"replicajax.{room}") for room in ROOMS)):
        for name in getattr(module, "__all__", None) or dir(module):
            value = getattr(module, name)
            if not name.startswith("_") and getattr(value, "__module__", "").startswith("replicajax"):
                yield f"{module.__name__}.{name}", value


PUBLIC = dict(public())
EXAMPLES = {
    name: textwrap.dedent(found.group())
    for name, value in PUBLIC.items()
    if (found := _EXAMPLE.search(inspect.cleandoc(value.__doc__ or "") + "\n"))
}


def test_signatures_are_as_written():
    """An alias stays one: `ArrayLike` alone is a hundred letters when spelled out."""
    for name, value in PUBLIC.items():
        if inspect.isfunction(value):
            assert len(str(inspect.signature(value))) < 700, name


def test_everything_says_what_it_is():
    assert [name for name, value in PUBLIC.items() if callable(value) and not (value.__doc__ or "").strip()] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, monkeypatch):
    monkeypatch.setenv("REPLICAJAX_CACHE", "off")  # or it would be set for the tests after this one
    exec(compile(ast.parse(EXAMPLES[name]), name, "exec"), {})
