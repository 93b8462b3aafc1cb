"""Learning with quantized weights on actual data: message passing, what it does on average, and samplers."""

from replicajax.amp._amp import AMPResult as AMPResult
from replicajax.amp._amp import Trajectory as Trajectory
from replicajax.amp._amp import amp as amp
from replicajax.amp._exhaustive import Exhaustive as Exhaustive
from replicajax.amp._exhaustive import exhaustive as exhaustive
from replicajax.amp._gibbs import GibbsSample as GibbsSample
from replicajax.amp._gibbs import gibbs as gibbs
from replicajax.amp._lowest import LowestCodeword as LowestCodeword
from replicajax.amp._lowest import lowest_codeword as lowest_codeword
from replicajax.amp._state_evolution import Limit as Limit
from replicajax.amp._state_evolution import StateEvolution as StateEvolution
from replicajax.amp._state_evolution import state_evolution as state_evolution
from replicajax.amp._tempering import TemperedSample as TemperedSample
from replicajax.amp._tempering import parallel_tempering as parallel_tempering
from replicajax.amp._vamp import vamp as vamp
