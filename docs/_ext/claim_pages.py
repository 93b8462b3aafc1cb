"""A page a claim: numbers and picture are computed while the site is built, and a claim that does not hold stops it."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)


def _write(app: Sphinx) -> None:
    jax.config.update("jax_enable_x64", True)
    import replicajax as rj
    from docs.claims import CLAIMS
    from docs.claims._claim import listed

    rj.enable_cache()
    folder = Path(app.srcdir) / "claims" / "pages"
    folder.mkdir(exist_ok=True)
    if app.config.claims_as_they_are and (folder / "list.inc").exists():
        return
    for claim in CLAIMS.values():
        evidence = claim.compute()
        for check in evidence.checks:
            if not check.holds:
                log.warning(f"claim {claim.name} is falsified: {check.what}: {check.found}, asked {check.asked}")
        if evidence.draw is not None:
            _draw(evidence.draw, folder / f"{claim.name}.png")
        _update(folder / f"{claim.name}.md", "\n".join(_page(claim, evidence)))
    _update(folder / "list.inc", "\n".join(listed(CLAIMS.values())))


def _page(claim, evidence) -> Iterable[str]:
    yield f"# {claim.title}\n"
    yield f"{claim.badge} {claim.source}\n"
    yield inspect.cleandoc(claim.text) + "\n"
    if evidence.draw is not None:
        yield f"![{claim.title}]({claim.name}.png)\n"
    yield "## The numbers\n"
    yield "| computed | found | asked | holds |\n| --- | --- | --- | --- |"
    for check in evidence.checks:
        cells = (check.what, check.found, check.asked, "yes" if check.holds else "**no**")
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    for remark in evidence.remarks:
        yield f"\n{remark}"
    yield f"\n## What would falsify it\n\n{claim.falsified_by[0].upper()}{claim.falsified_by[1:]}\n"
    yield "## The code\n\nThis function computed the numbers above when the page was built; `make test` runs it too.\n"
    yield f"```python\n{_code(claim.compute)}\n```\n"


def _code(function: Callable) -> str:
    """Without its docstring, which is the page's text."""
    source = textwrap.dedent(inspect.getsource(function))
    (definition,) = ast.parse(source).body
    text = definition.body[0]
    lines = source.splitlines()
    return "\n".join(lines[: text.lineno - 1] + lines[text.end_lineno :])


def _draw(draw, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.grid(alpha=0.25)
    if axes.get_legend() is not None:
        axes.get_legend().set_frame_on(False)
    figure.savefig(path, dpi=150)


def _update(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def setup(app: Sphinx) -> dict:
    app.add_config_value("claims_as_they_are", False, "")  # `-D claims_as_they_are=1`: while one writes other pages
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
