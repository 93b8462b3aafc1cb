"""Which width, how many bits: answered by gradients through the theory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from replicajax.search._bits import BitsCurve as BitsCurve
from replicajax.search._bits import fewest_bits as fewest_bits
from replicajax.search._bits import optimal_bits as optimal_bits
from replicajax.search._width import OptimalWidth as OptimalWidth
from replicajax.search._width import optimal_width as optimal_width

if TYPE_CHECKING:
    from replicajax.search._budget import Split as Split
    from replicajax.search._budget import allocate_budget as allocate_budget
    from replicajax.search._codebook import OptimalCodebook as OptimalCodebook
    from replicajax.search._codebook import optimal_codebook as optimal_codebook
    from replicajax.search._cost import TrainingCost as TrainingCost
    from replicajax.search._frontier import RateFrontier as RateFrontier
    from replicajax.search._frontier import rate_frontier as rate_frontier
    from replicajax.search._layer_codebook import LayerCodebook as LayerCodebook

_LATER = {
    "OptimalCodebook": "_codebook",
    "LayerCodebook": "_layer_codebook",
    "RateFrontier": "_frontier",
    "optimal_codebook": "_codebook",
    "rate_frontier": "_frontier",
    "Split": "_budget",
    "allocate_budget": "_budget",
    "TrainingCost": "_cost",
}


def __getattr__(name: str) -> Any:
    """Budgets bring all of `scaling` with them, codebooks scipy's optimizers, which a search for a width can do without."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
