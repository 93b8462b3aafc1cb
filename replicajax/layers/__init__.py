"""Post-training quantization of a layer: what rounding, GPTQ and the best possible code leave of its outputs.  theory 10"""

from replicajax.layers._annealing import anneal as anneal
from replicajax.layers._entropy_coded import entropy_coded_error as entropy_coded_error
from replicajax.layers._errors import gptq_error as gptq_error
from replicajax.layers._errors import gptq_evolution as gptq_evolution
from replicajax.layers._errors import rounding_error as rounding_error
from replicajax.layers._feedback import Evolution as Evolution
from replicajax.layers._gptq import gptq as gptq
from replicajax.layers._gptq import gptq_tensor as gptq_tensor
from replicajax.layers._gptq_rounding import gptq_rounding as gptq_rounding
from replicajax.layers._layer import Layer as Layer
from replicajax.layers._limit import rate_limit as rate_limit
from replicajax.layers._limit import rate_needed as rate_needed
from replicajax.layers._moments import SecondMoment as SecondMoment
from replicajax.layers._moments import second_moment as second_moment
from replicajax.layers._moments import write_moments as write_moments
from replicajax.layers._nearest import output_error as output_error
from replicajax.layers._nearest import round_to_nearest as round_to_nearest
from replicajax.layers._optimum import Optimum as Optimum
from replicajax.layers._optimum import optimum as optimum
from replicajax.layers._optimum import optimum_error as optimum_error
from replicajax.layers._report import LayerReport as LayerReport
from replicajax.layers._report import report as report
from replicajax.layers._scale_search import optimal_scale as optimal_scale
