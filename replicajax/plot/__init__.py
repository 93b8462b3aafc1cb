"""Figures; every function draws on axes it is given."""

from replicajax.plot._phase import plot_phase_diagram as plot_phase_diagram
from replicajax.plot._phase import variable_label as variable_label
from replicajax.plot._width import WidthCurve as WidthCurve
from replicajax.plot._width import plot_widths as plot_widths
