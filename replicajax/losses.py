"""Losses: what a row costs.  Subclass `ResidualLoss`, `MarginLoss` or `Loss`, with one method, for your own."""

from replicajax.models._losses import Absolute as Absolute
from replicajax.models._losses import Exact as Exact
from replicajax.models._losses import Hinge as Hinge
from replicajax.models._losses import Huber as Huber
from replicajax.models._losses import Logistic as Logistic
from replicajax.models._losses import Loss as Loss
from replicajax.models._losses import MarginLoss as MarginLoss
from replicajax.models._losses import Perceptron as Perceptron
from replicajax.models._losses import Quantile as Quantile
from replicajax.models._losses import ResidualLoss as ResidualLoss
from replicajax.models._losses import Square as Square
