"""Figures; every function draws on axes it is given."""

from replicajax.plot._width import WidthCurve as WidthCurve
from replicajax.plot._width import plot_widths as plot_widths
