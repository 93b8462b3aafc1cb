"""Which width, how many bits: answered by gradients through the theory."""

from replicajax.search._bits import BitsCurve as BitsCurve
from replicajax.search._bits import fewest_bits as fewest_bits
from replicajax.search._bits import optimal_bits as optimal_bits
from replicajax.search._budget import Split as Split
from replicajax.search._budget import allocate_budget as allocate_budget
from replicajax.search._cost import TrainingCost as TrainingCost
from replicajax.search._width import OptimalWidth as OptimalWidth
from replicajax.search._width import optimal_width as optimal_width
