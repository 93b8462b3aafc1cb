"""Gaussian expectations and fixed points with implicit derivatives; knows no physics."""

from replicajax.numerics._implicit import implicit_root as implicit_root
from replicajax.numerics._newton_picard import NewtonPicard as NewtonPicard
from replicajax.numerics._newton_picard import solve_fixed_point as solve_fixed_point
from replicajax.numerics._soft_rounding import SoftRounding as SoftRounding
from replicajax.numerics._soft_rounding import hard_rounding as hard_rounding
from replicajax.numerics._soft_rounding import soft_rounding as soft_rounding
