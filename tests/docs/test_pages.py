"""The code on the pages runs, prints what is written, and gives the numbers in its comments."""

import pytest
from snippets import PAGES, ROOT, blocks, run

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
WITH_CODE = [name for name in NAMES if any(block.language == "python" for block in blocks(ROOT / name))]
SLOW = [name for name in WITH_CODE if any(block.slow for block in blocks(ROOT / name))]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    """Pages write files where they are."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", WITH_CODE)
def test_page(name):
    done = run(ROOT / name, slow=False)
    assert done.blocks or name in SLOW


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_slow_page(name):
    run(ROOT / name, slow=True)
