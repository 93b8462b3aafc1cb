"""What is public: the rooms of the package, each with its functions and classes.  For the API's pages and for their tests."""

from importlib import import_module
from types import ModuleType
from typing import Any

import replicajax

ROOMS = (
    *("losses", "distributions", "models", "replica", "amp", "formats", "layers", "scaling", "dynamics", "search"),
    *("sweep", "trials", "plot"),
)


def names(module: ModuleType) -> dict[str, Any]:
    """Functions and classes of the package that may be had from this module."""
    listed = getattr(module, "__all__", None) or dir(module)
    found = {name: getattr(module, name) for name in listed if not name.startswith("_")}
    ours = {name: value for name, value in found.items() if getattr(value, "__module__", "").startswith("replicajax")}
    return {name: value for name, value in ours.items() if callable(value)}


def modules() -> list[ModuleType]:
    """The package, then its rooms."""
    return [replicajax, *(import_module(f"replicajax.{room}") for room in ROOMS)]


def first_had_from(module: ModuleType) -> list[str]:
    """Its names that no module before it has: one may be had from several."""
    before = modules()[: modules().index(module)]
    seen = {id(value) for each in before for value in names(each).values()}
    return [name for name, value in names(module).items() if id(value) not in seen]
