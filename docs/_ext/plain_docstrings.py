"""Docstrings are plain text with equations in it; before Sphinx reads them as markup, what is not markup is escaped.

`name` becomes code, an indented paragraph outside a section stays as it is set, every other sign stands for itself.
"""

import re

from sphinx.application import Sphinx

_SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Of a layer alone):\s*$")
_CODE = re.compile(r"`+([^`]+)`+")
_SIGNS = re.compile(r"([\\*|_])")


def _escaped(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(f"``{part}``" if i % 2 else _SIGNS.sub(r"\\\1", part) for i, part in enumerate(parts))


def _plain(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    shown: list[str] = []
    section, literal, blank = False, False, True
    for line in lines:
        if not line.strip():
            shown.append("")
            blank = True
            continue
        indented = line.startswith("  ")
        if not indented:
            section, literal = bool(_SECTION.match(line)), False
        elif not section and blank and not literal:
            shown += ["::", ""]
            literal = True
        shown.append(line if literal or _SECTION.match(line) else _argument(line) if section else _escaped(line))
        blank = False
    if what in ("attribute", "property", "data") and shown:
        shown[0] = ": " + shown[0]  # or napoleon takes what stands before a colon for a type
    lines[:] = [*shown, ""]


def _argument(line: str) -> str:
    """`a, b: what they are`: the names are napoleon's to read, the rest is text."""
    names, colon, text = line.partition(": ")
    if line.startswith("  ") and not line.startswith("   ") and colon and re.fullmatch(r"[\w\s,.*=]+", names):
        return f"{names}{colon}{_escaped(text)}"
    return _escaped(line)


def setup(app: Sphinx) -> dict:
    app.connect("autodoc-process-docstring", _plain, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
