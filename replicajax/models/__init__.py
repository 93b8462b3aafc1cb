"""What is learned: the task, its potentials, and actual data of either kind (read or drawn)."""

from replicajax.models._channel import Channel as Channel
from replicajax.models._classification import Classification as Classification
from replicajax.models._draw import DESIGNS as DESIGNS
from replicajax.models._draw import Design as Design
from replicajax.models._draw import Instance as Instance
from replicajax.models._draw import draw as draw
from replicajax.models._moments import Whitening as Whitening
from replicajax.models._moments import whitening as whitening
from replicajax.models._potentials import Fields as Fields
from replicajax.models._potentials import Order as Order
from replicajax.models._potentials import WeightAverages as WeightAverages
from replicajax.models._potentials import coupling as coupling
from replicajax.models._potentials import energetic as energetic
from replicajax.models._potentials import entropic as entropic
from replicajax.models._potentials import fields_from_order as fields_from_order
from replicajax.models._potentials import free_energy as free_energy
from replicajax.models._potentials import order_from_averages as order_from_averages
from replicajax.models._potentials import rounded_averages as rounded_averages
from replicajax.models._potentials import weight_averages as weight_averages
from replicajax.models._task import LinearRegression as LinearRegression
from replicajax.models._task import Task as Task
from replicajax.models._task import square_only as square_only
from replicajax.models._task import with_limit as with_limit
