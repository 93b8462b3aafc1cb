"""`python -m figures` draws every figure of this folder and prints where it is."""

from importlib import import_module
from pkgutil import iter_modules

import figures

for module in sorted(m.name for m in iter_modules(figures.__path__) if not m.name.startswith("_")):
    print(import_module(f"figures.{module}").draw(), flush=True)
