"""Gaussian expectations and fixed points with implicit derivatives; knows no physics."""

from replicajax.numerics._bisect import bisect as bisect
from replicajax.numerics._gamma_nodes import gamma_nodes as gamma_nodes
from replicajax.numerics._implicit import implicit_root as implicit_root
from replicajax.numerics._newton_picard import NewtonPicard as NewtonPicard
from replicajax.numerics._newton_picard import solve_fixed_point as solve_fixed_point
from replicajax.numerics._rounding_grid import grid_averages as grid_averages
from replicajax.numerics._rounding_grid import grid_slopes as grid_slopes
from replicajax.numerics._rounding_slopes import Nodes as Nodes
from replicajax.numerics._rounding_slopes import RoundingSlopes as RoundingSlopes
from replicajax.numerics._rounding_slopes import Slope as Slope
from replicajax.numerics._rounding_slopes import gauss_legendre as gauss_legendre
from replicajax.numerics._rounding_slopes import hard_rounding_slopes as hard_rounding_slopes
from replicajax.numerics._rounding_slopes import negligible_beyond as negligible_beyond
from replicajax.numerics._rounding_slopes import rounding_averages as rounding_averages
from replicajax.numerics._rounding_slopes import rounding_slopes as rounding_slopes
from replicajax.numerics._soft_rounding import SoftRounding as SoftRounding
from replicajax.numerics._soft_rounding import default_nodes as default_nodes
from replicajax.numerics._soft_rounding import hard_rounding as hard_rounding
from replicajax.numerics._soft_rounding import soft_rounding as soft_rounding
from replicajax.numerics._student_t import student_t_beyond as student_t_beyond
