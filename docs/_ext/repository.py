"""Pages that are files of the repository: figures, notebooks, the changelog.  They are linked in, not copied into git."""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]


def _bring(app: Sphinx) -> None:
    for folder, pattern in (("figures", "*.png"), ("notebooks", "*.ipynb")):
        target = Path(app.srcdir) / folder
        target.mkdir(exist_ok=True)
        for file in (ROOT / folder).glob(pattern):
            shutil.copy2(file, target)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", _bring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
