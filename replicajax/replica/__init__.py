"""Replica-symmetric theory of learning with quantized weights. [Q]"""

from replicajax.replica._moments import Whitening as Whitening
from replicajax.replica._moments import whitening as whitening
from replicajax.replica._potentials import Fields as Fields
from replicajax.replica._potentials import Order as Order
from replicajax.replica._potentials import coupling as coupling
from replicajax.replica._potentials import energetic as energetic
from replicajax.replica._potentials import entropic as entropic
from replicajax.replica._potentials import free_energy as free_energy
from replicajax.replica._ridge import Unquantized as Unquantized
from replicajax.replica._ridge import optimal_ridge as optimal_ridge
from replicajax.replica._ridge import ridge_regression as ridge_regression
from replicajax.replica._solution import Solution as Solution
from replicajax.replica._solve import solve as solve
from replicajax.replica._task import LinearRegression as LinearRegression
