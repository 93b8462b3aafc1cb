"""`help()` of what is public fits a screen, and the examples in docstrings run."""

import ast
import inspect
import re
import textwrap

import pytest

from docs.names import modules, names

_EXAMPLE = re.compile(r"(?:^    import replicajax.*\n(?:^    .*\n)*)", re.MULTILINE)


PUBLIC = {f"{module.__name__}.{name}": value for module in modules() for name, value in names(module).items()}
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
