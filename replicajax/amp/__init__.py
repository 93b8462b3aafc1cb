"""Learning with quantized weights on actual data."""

from replicajax.amp._gibbs import GibbsSample as GibbsSample
from replicajax.amp._gibbs import gibbs as gibbs
