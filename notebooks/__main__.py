"""`python -m notebooks [name ...]` runs the notebooks of this folder, or those named, again; outputs are saved in place."""

import sys
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent

for path in sorted(FOLDER.glob("*.ipynb")):
    if sys.argv[1:] and path.stem not in sys.argv[1:]:
        continue
    start = perf_counter()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}}, record_timing=False
    ).execute()
    nbformat.write(notebook, path)
    print(f"{path} ({perf_counter() - start:.0f} s)", flush=True)
