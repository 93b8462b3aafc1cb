"""Scaling laws of low-precision training: exact risk of quantized SGD, noise of formats, laws, effective sizes."""

from replicajax.scaling._laws import Law as Law
from replicajax.scaling._laws import effective_data_size as effective_data_size
from replicajax.scaling._laws import effective_model_size as effective_model_size
from replicajax.scaling._laws import effective_steps as effective_steps
from replicajax.scaling._laws import fit_law as fit_law
from replicajax.scaling._laws import quantization_floor as quantization_floor
from replicajax.scaling._precision import KINDS as KINDS
from replicajax.scaling._precision import SITES as SITES
from replicajax.scaling._precision import Precision as Precision
from replicajax.scaling._precision import codebook_variance as codebook_variance
from replicajax.scaling._precision import float_variance as float_variance
from replicajax.scaling._precision import integer_variance as integer_variance
from replicajax.scaling._precision import of_bits as of_bits
from replicajax.scaling._problem import Regression as Regression
from replicajax.scaling._problem import from_data as from_data
from replicajax.scaling._problem import power_law as power_law
from replicajax.scaling._risk import SGDRisk as SGDRisk
from replicajax.scaling._risk import sgd_risk as sgd_risk
from replicajax.scaling._risk import step_limit as step_limit
from replicajax.scaling._schedule import Schedule as Schedule
from replicajax.scaling._schedule import step_factors as step_factors
from replicajax.scaling._sketch import sketched as sketched
