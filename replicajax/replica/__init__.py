"""Replica-symmetric theory of learning with quantized weights. [Q]"""

from replicajax.replica._accuracy import Accuracy as Accuracy
from replicajax.replica._accuracy import accuracies as accuracies
from replicajax.replica._accuracy import accuracy as accuracy
from replicajax.replica._accuracy import ridge_accuracy as ridge_accuracy
from replicajax.replica._batch import at_once as at_once
from replicajax.replica._batch import solve_many as solve_many
from replicajax.replica._breaking import allowed_steps as allowed_steps
from replicajax.replica._breaking import break_many as break_many
from replicajax.replica._breaking import broken_solution as broken_solution
from replicajax.replica._breaking import broken_where_needed as broken_where_needed
from replicajax.replica._pool import Device as Device
from replicajax.replica._ridge import Unquantized as Unquantized
from replicajax.replica._ridge import optimal_ridge as optimal_ridge
from replicajax.replica._ridge import ridge_regression as ridge_regression
from replicajax.replica._ridge import unquantized as unquantized
from replicajax.replica._slopes import Direction as Direction
from replicajax.replica._slopes import Slopes as Slopes
from replicajax.replica._slopes import slopes_many as slopes_many
from replicajax.replica._slopes import solve_with_slopes as solve_with_slopes
from replicajax.replica._solution import Solution as Solution
from replicajax.replica._solve import solve as solve
