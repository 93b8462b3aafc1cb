"""replicajax: a differentiable theory engine for quantized learning."""

from replicajax import distributions as distributions
from replicajax import models as models
from replicajax import replica as replica
from replicajax import search as search
from replicajax.amp import AMPResult as AMPResult
from replicajax.amp import StateEvolution as StateEvolution
from replicajax.amp import amp as amp
from replicajax.amp import exhaustive as exhaustive
from replicajax.amp import gibbs as gibbs
from replicajax.amp import parallel_tempering as parallel_tempering
from replicajax.amp import state_evolution as state_evolution
from replicajax.codebooks import Codebook as Codebook
from replicajax.codebooks import codebook as codebook
from replicajax.codebooks import power as power
from replicajax.codebooks import uniform as uniform
from replicajax.models import LinearRegression as LinearRegression
from replicajax.models import draw as draw
from replicajax.replica import Solution as Solution
from replicajax.replica import optimal_ridge as optimal_ridge
from replicajax.replica import ridge_regression as ridge_regression
from replicajax.replica import solve as solve
from replicajax.search import optimal_bits as optimal_bits
from replicajax.search import optimal_width as optimal_width
from replicajax.trials import compare as compare
from replicajax.trials import measure_widths as measure_widths
