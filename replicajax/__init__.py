"""replicajax: a differentiable theory engine for quantized learning."""

from replicajax import replica as replica
from replicajax import search as search
from replicajax.amp import gibbs as gibbs
from replicajax.codebooks import Codebook as Codebook
from replicajax.codebooks import codebook as codebook
from replicajax.codebooks import power as power
from replicajax.codebooks import uniform as uniform
from replicajax.replica import LinearRegression as LinearRegression
from replicajax.replica import Solution as Solution
from replicajax.replica import optimal_ridge as optimal_ridge
from replicajax.replica import ridge_regression as ridge_regression
from replicajax.replica import solve as solve
from replicajax.search import measure_widths as measure_widths
from replicajax.search import optimal_bits as optimal_bits
from replicajax.search import optimal_width as optimal_width
