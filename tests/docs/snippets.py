"""Runs the code of a Markdown page, and compares what it prints and the numbers in its comments.

x + 1                     # 3.14, whatever follows       a line ending in numbers: its value, to the digits written
```text                                                  after a block: what it printed
<!--- invisible-code-block: python ... --->              what a reader is told in words: X and y are given
<!--- slow --->                                          before a block: only `make test-all` runs it
<!--- skip: why --->                                     before a block: nobody does
"""

import ast
import io
import re
import tokenize
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from sybil import Document
from sybil.parsers.abstract.lexers import LexerCollection
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, FencedCodeBlockLexer

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(
            page
            for page in (ROOT / "docs").rglob("*.md")
            if not {"_build", "pages", "notebooks"} & set(page.relative_to(ROOT).parts)
        ),
    ]
)
_LEXERS = LexerCollection(
    [
        FencedCodeBlockLexer(r"[\w{}-]+", {"language": "language", "source": "source"}),
        DirectiveInHTMLCommentLexer("invisible-code-block", ".+", {"arguments": "language", "source": "source"}),
        DirectiveInHTMLCommentLexer("(?:slow|skip)", ".*?", {"directive": "directive"}),
    ]
)
_NUMBER = r"(?:True|False|[-+−]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)"
_NUMBERS = re.compile(rf"#\s*[(\[]?({_NUMBER}(?:, {_NUMBER})*)[)\]]?(?=$|[\s,;:.%)\]])")


class Block(NamedTuple):
    line: int
    language: str
    source: str
    slow: bool
    skipped: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    document = Document(text, str(page))
    found, order = [], ""
    for region in sorted(_LEXERS(document), key=lambda region: region.start):
        if "directive" in region.lexemes:
            order = region.lexemes["directive"]
            continue
        line = text.count("\n", 0, region.start) + 1
        found.append(
            Block(line, region.lexemes["language"], region.lexemes["source"], order == "slow", order == "skip")
        )
        order = ""
    return found


class Run(NamedTuple):
    blocks: int
    numbers: int


def run(page: Path, *, slow: bool) -> Run:
    """Runs the page's Python in one namespace; AssertionError where a number or a printed line is another."""
    space: dict[str, object] = {"__name__": "page"}
    ran = compared = 0
    printed: str | None = None
    for block in blocks(page):
        if block.language == "python":
            printed = None
            if block.skipped or (block.slow and not slow):
                continue
            out = io.StringIO()
            with redirect_stdout(out):
                compared += _statements(block, page, space)
            printed, ran = out.getvalue(), ran + 1
        elif block.language == "text" and printed is not None:
            _same_lines(printed, block.source, f"{page.name}:{block.line}")
            printed = None
    return Run(ran, compared)


def _statements(block: Block, page: Path, space: dict[str, object]) -> int:
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(block.source).readline)
        if token.type == tokenize.COMMENT
    }
    compared = 0
    for statement in ast.parse(block.source).body:
        where = f"{page.name}:{block.line + statement.lineno}"
        said = _NUMBERS.match(comments.get(statement.end_lineno or 0, ""))
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), where, "eval"), space)
            if said:
                _same_numbers(value, said.group(1), where)
                compared += 1
        else:
            exec(compile(ast.Module([statement], []), where, "exec"), space)
    return compared


def _same_numbers(value: object, said: str, where: str) -> None:
    """To the last digit that is written, one unit of it off at most."""
    texts = [text.replace("−", "-").replace("True", "1").replace("False", "0") for text in said.split(", ")]
    found = np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in jax.tree.leaves(value)])
    assert found.size >= len(texts), f"{where}: {found.size} numbers, {len(texts)} are written"
    for text, number in zip(texts, found, strict=False):
        mantissa, _, exponent = text.partition("e")
        digits = len(mantissa.partition(".")[2])
        unit = 10.0 ** (int(exponent or 0) - digits) if "." in mantissa else 0.0
        assert abs(number - float(text)) <= unit, f"{where}: {number!r}, {text} is written"


def _same_lines(printed: str, said: str, where: str) -> None:
    """Word by word; numbers to a part in a million, or one unit of their last digit."""
    lines, wanted = (text.rstrip().splitlines() for text in (printed, said))
    assert len(lines) == len(wanted), f"{where}: {len(lines)} lines printed, {len(wanted)} are written:\n{printed}"
    for line, want in zip(lines, wanted, strict=True):
        words, wants = line.split(), want.split()
        assert len(words) == len(wants), f"{where}: {line!r}, {want!r} is written"
        for word, text in zip(words, wants, strict=True):
            assert word == text or _near(word, text), f"{where}: {line!r}, {want!r} is written"


def _near(word: str, text: str) -> bool:
    try:
        a, b = (float(each.strip("[](),;:%")) for each in (word, text))
    except ValueError:
        return False
    digits = len(text.strip("[](),;:%").partition("e")[0].partition(".")[2])
    return abs(a - b) <= max(1e-6 * abs(b), 10.0**-digits if digits else 0.0)
