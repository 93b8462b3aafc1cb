"""`{names} replicajax.formats`: every public name of a module with its docstring, in the order of its source.

No list to keep: a name that is re-exported is on the page.
"""

import inspect
from importlib import import_module

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from docs.names import first_had_from


class Names(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module = import_module(self.arguments[0])
        lines = ["```{eval-rst}"]
        for name in first_had_from(module):
            lines += ["", *_directive(module.__name__, name, getattr(module, name)), ""]
        lines.append("```")
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, module.__name__), self.content_offset, parent)
        return parent.children


def _directive(module: str, name: str, value: object) -> list[str]:
    if inspect.isclass(value):
        return [f".. autoclass:: {module}.{name}", "   :members:"]
    return [f".. autofunction:: {module}.{name}"]


def setup(app: Sphinx) -> dict:
    app.add_directive("names", Names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
