"""Theory on trial: against algorithms on drawn instances, and against held-out rows of real data."""

from replicajax.trials._classifier import DigitsTransformer as DigitsTransformer
from replicajax.trials._classifier import TrainedModel as TrainedModel
from replicajax.trials._classifier import train_digits as train_digits
from replicajax.trials._compare import AMPTrials as AMPTrials
from replicajax.trials._compare import Comparison as Comparison
from replicajax.trials._compare import SampledTrials as SampledTrials
from replicajax.trials._compare import Score as Score
from replicajax.trials._compare import compare as compare
from replicajax.trials._divergence import MeasuredDivergence as MeasuredDivergence
from replicajax.trials._divergence import bits_saved as bits_saved
from replicajax.trials._divergence import compare_allocations as compare_allocations
from replicajax.trials._divergence import cube_root_formats as cube_root_formats
from replicajax.trials._divergence import measure_divergence as measure_divergence
from replicajax.trials._divergence import quantize_weights as quantize_weights
from replicajax.trials._divergence import weight_matrices as weight_matrices
from replicajax.trials._measure import HeldOut as HeldOut
from replicajax.trials._measure import measure_widths as measure_widths
from replicajax.trials._sgd import Dither as Dither
from replicajax.trials._sgd import FloatGrid as FloatGrid
from replicajax.trials._sgd import IntegerGrid as IntegerGrid
from replicajax.trials._sgd import SimulatedRisk as SimulatedRisk
from replicajax.trials._sgd import simulate_sgd as simulate_sgd
from replicajax.trials._split import check_rows as check_rows
from replicajax.trials._train import HeldOutErrors as HeldOutErrors
from replicajax.trials._train import Trained as Trained
from replicajax.trials._train import train as train
