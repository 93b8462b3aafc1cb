"""Gaussian expectations and fixed points with implicit derivatives; knows no physics."""

from replicajax.numerics._backend import JAX as JAX
from replicajax.numerics._backend import NUMPY as NUMPY
from replicajax.numerics._backend import Backend as Backend
from replicajax.numerics._bisect import bisect as bisect
from replicajax.numerics._gamma_nodes import gamma_nodes as gamma_nodes
from replicajax.numerics._implicit import implicit_root as implicit_root
from replicajax.numerics._implicit import slope_of_root as slope_of_root
from replicajax.numerics._roots import bracketed_roots as bracketed_roots
from replicajax.numerics._rounding_grid import grid_averages as grid_averages
from replicajax.numerics._soft_rounding import Nearby as Nearby
from replicajax.numerics._soft_rounding import default_nodes as default_nodes
from replicajax.numerics._soft_rounding import hard_rounding as hard_rounding
from replicajax.numerics._soft_rounding import soft_averages as soft_averages
from replicajax.numerics._soft_rounding import soft_rounding as soft_rounding
from replicajax.numerics._staircase import Averages as Averages
from replicajax.numerics._staircase import Levels as Levels
from replicajax.numerics._staircase import Nodes as Nodes
from replicajax.numerics._staircase import RoundingSlopes as RoundingSlopes
from replicajax.numerics._staircase import Slope as Slope
from replicajax.numerics._staircase import gauss_legendre as gauss_legendre
from replicajax.numerics._staircase import hard_staircase_slopes as hard_staircase_slopes
from replicajax.numerics._staircase import negligible_beyond as negligible_beyond
from replicajax.numerics._staircase import staircase_averages as staircase_averages
from replicajax.numerics._student_t import student_t_beyond as student_t_beyond
from replicajax.numerics._window import SoftRounding as SoftRounding
