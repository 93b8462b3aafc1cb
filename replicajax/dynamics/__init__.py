"""Training of quantized weights, step by step: what a straight-through estimator finds, and when.  theory 11, [T]"""

from replicajax.dynamics._optimum import OptimalTraining as OptimalTraining
from replicajax.dynamics._optimum import optimal_training as optimal_training
from replicajax.dynamics._stationary import Stationary as Stationary
from replicajax.dynamics._straight_through import StraightThrough as StraightThrough
from replicajax.dynamics._straight_through import straight_through as straight_through
