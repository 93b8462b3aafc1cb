"""Phase diagrams: the theory on grids of any axes, and the curves that divide them."""

from replicajax.sweep._boundaries import error_peak as error_peak
from replicajax.sweep._boundaries import freezing_line as freezing_line
from replicajax.sweep._boundaries import stability_line as stability_line
from replicajax.sweep._phase_diagram import OBSERVABLES as OBSERVABLES
from replicajax.sweep._phase_diagram import phase_diagram as phase_diagram
from replicajax.sweep._store import open_sweep as open_sweep
