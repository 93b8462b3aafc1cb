"""`{names} replicajax.formats`: every public name of a module with its docstring, in the order of its source.

No list to keep: a name that is re-exported is on the page.
"""

import inspect
from importlib import import_module

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import replicajax


class Names(SphinxDirective):
    """With a body: only these names of the module."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        module = import_module(self.arguments[0])
        asked = [name for line in self.content for name in line.split()]
        lines = ["```{eval-rst}"]
        for name in asked or _public(module):
            lines += ["", *_directive(module.__name__, name, getattr(module, name)), ""]
        lines.append("```")
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, module.__name__), self.content_offset, parent)
        return parent.children


def _public(module) -> list[str]:
    """Of a room: what is not on the page of the package already."""
    declared = getattr(module, "__all__", None) or dir(module)
    above = set() if module is replicajax else set(replicajax.__all__)
    kept = [name for name in declared if not name.startswith("_") and name not in above]
    return [name for name in kept if not inspect.ismodule(getattr(module, name))]


def _directive(module: str, name: str, value: object) -> list[str]:
    if inspect.isclass(value):
        return [f".. autoclass:: {module}.{name}", "   :members:"]
    kind = "autofunction" if callable(value) else "autodata"
    return [f".. {kind}:: {module}.{name}", *(["   :no-value:"] if kind == "autodata" else [])]


def setup(app: Sphinx) -> dict:
    app.add_directive("names", Names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
