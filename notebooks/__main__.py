"""`python -m notebooks` runs every notebook of this folder again and saves its outputs in place."""

from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent

for path in sorted(FOLDER.glob("*.ipynb")):
    start = perf_counter()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}}, record_timing=False
    ).execute()
    nbformat.write(notebook, path)
    print(f"{path} ({perf_counter() - start:.0f} s)", flush=True)
