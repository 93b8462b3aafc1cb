"""Theory on trial: against algorithms on drawn instances, and against held-out rows of real data."""

from replicajax.trials._compare import AMPTrials as AMPTrials
from replicajax.trials._compare import Comparison as Comparison
from replicajax.trials._compare import SampledTrials as SampledTrials
from replicajax.trials._compare import Score as Score
from replicajax.trials._compare import compare as compare
from replicajax.trials._measure import HeldOut as HeldOut
from replicajax.trials._measure import measure_widths as measure_widths
from replicajax.trials._train import HeldOutErrors as HeldOutErrors
from replicajax.trials._train import Trained as Trained
from replicajax.trials._train import train as train
