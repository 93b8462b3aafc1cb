"""Crawls the built site from its front page: a link, picture or anchor that is not there fails the build."""

from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

log = logging.getLogger(__name__)


class _Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name in ("href", "src") and tag != "base":
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def crawl(root: Path) -> tuple[int, list[str]]:
    """How many links were followed, and those that lead nowhere."""
    pages: dict[Path, _Page] = {}
    wanted: dict[Path, set[str]] = defaultdict(set)
    dead, followed, waiting = [], 0, [root / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in pages:
            continue
        pages[path] = page = _Page(path.read_text())
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                dead.append(f"{path.relative_to(root)}: {link}")
            elif target.suffix == ".html":
                waiting.append(target)
                wanted[target].add(f"{unquote(parts.fragment)}\n{path.relative_to(root)}")
    for target, fragments in wanted.items():
        for fragment, source in (text.split("\n") for text in fragments):
            if fragment and fragment not in pages[target].anchors:
                dead.append(f"{source}: {target.relative_to(root)}#{fragment}")
    return followed, dead


def _check(app: Sphinx, failure: Exception | None) -> None:
    if failure is None and app.builder.name == "html":
        followed, dead = crawl(Path(app.outdir).resolve())
        if dead:
            raise ExtensionError("dead links:\n" + "\n".join(sorted(dead)[:40]))
        log.info(f"{followed} links lead somewhere")


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
