"""replicajax: a differentiable theory engine for quantized learning."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replicajax import codebooks as codebooks
    from replicajax import distributions as distributions
    from replicajax import dynamics as dynamics
    from replicajax import formats as formats
    from replicajax import layers as layers
    from replicajax import losses as losses
    from replicajax import models as models
    from replicajax import numerics as numerics
    from replicajax import plot as plot
    from replicajax import replica as replica
    from replicajax import scaling as scaling
    from replicajax import search as search
    from replicajax import sweep as sweep
    from replicajax import trials as trials
    from replicajax._cache import enable_cache as enable_cache
    from replicajax.amp import AMPResult as AMPResult
    from replicajax.amp import StateEvolution as StateEvolution
    from replicajax.amp import amp as amp
    from replicajax.amp import exhaustive as exhaustive
    from replicajax.amp import gibbs as gibbs
    from replicajax.amp import parallel_tempering as parallel_tempering
    from replicajax.amp import state_evolution as state_evolution
    from replicajax.amp import vamp as vamp
    from replicajax.codebooks import Codebook as Codebook
    from replicajax.codebooks import codebook as codebook
    from replicajax.codebooks import power as power
    from replicajax.codebooks import uniform as uniform
    from replicajax.models import Classification as Classification
    from replicajax.models import Features as Features
    from replicajax.models import GivenData as GivenData
    from replicajax.models import LinearRegression as LinearRegression
    from replicajax.models import RowLengths as RowLengths
    from replicajax.models import draw as draw
    from replicajax.replica import Solution as Solution
    from replicajax.replica import optimal_ridge as optimal_ridge
    from replicajax.replica import ridge_regression as ridge_regression
    from replicajax.replica import solve as solve
    from replicajax.search import allocate_budget as allocate_budget
    from replicajax.search import optimal_bits as optimal_bits
    from replicajax.search import optimal_codebook as optimal_codebook
    from replicajax.search import optimal_width as optimal_width
    from replicajax.search import rate_frontier as rate_frontier
    from replicajax.sweep import error_peak as error_peak
    from replicajax.sweep import freezing_line as freezing_line
    from replicajax.sweep import open_sweep as open_sweep
    from replicajax.sweep import phase_diagram as phase_diagram
    from replicajax.sweep import stability_line as stability_line
    from replicajax.trials import compare as compare
    from replicajax.trials import measure_widths as measure_widths

# The same for the interpreter, which imports a module when one of its names is first asked for.
_MODULES = (
    "codebooks",
    "distributions",
    "dynamics",
    "formats",
    "layers",
    "losses",
    "models",
    "numerics",
    "plot",
    "replica",
    "scaling",
    "search",
    "sweep",
    "trials",
)
_NAMES = {
    name: f"replicajax.{module}"
    for module, names in {
        "_cache": "enable_cache",
        "amp": "AMPResult StateEvolution amp exhaustive gibbs parallel_tempering state_evolution vamp",
        "codebooks": "Codebook codebook power uniform",
        "models": "Classification Features GivenData LinearRegression RowLengths draw",
        "replica": "Solution optimal_ridge ridge_regression solve",
        "search": "allocate_budget optimal_bits optimal_codebook optimal_width rate_frontier",
        "sweep": "error_peak freezing_line open_sweep phase_diagram stability_line",
        "trials": "compare measure_widths",
    }.items()
    for name in names.split()
}


class _Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name in _NAMES:
            value = getattr(import_module(_NAMES[name]), name)
            setattr(self, name, value)
            return value
        if name in _MODULES:
            return import_module(f"replicajax.{name}")
        if name == "__version__":
            return import_module("importlib.metadata").version("replicajax")
        if name == "__all__":
            return [*_MODULES, *_NAMES]
        raise AttributeError(f"module 'replicajax' has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Importing the folder `amp` must not hide the function of that name."""
        if not (name in _NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted([*_MODULES, *_NAMES, *(name for name in self.__dict__ if name.startswith("__"))])


sys.modules[__name__].__class__ = _Lazy
