"""How weights are distributed: one random number w, its density and moments, its mixture of Gaussians, a sampler, and what
rounding it costs."""

from replicajax.distributions._atoms import Discrete as Discrete
from replicajax.distributions._atoms import GaussBernoulli as GaussBernoulli
from replicajax.distributions._continuous import GeneralizedNormal as GeneralizedNormal
from replicajax.distributions._continuous import Laplace as Laplace
from replicajax.distributions._continuous import Normal as Normal
from replicajax.distributions._continuous import StudentT as StudentT
from replicajax.distributions._family import as_data as as_data
from replicajax.distributions._fit import Fit as Fit
from replicajax.distributions._fit import fit as fit
from replicajax.distributions._law import Distribution as Distribution
from replicajax.distributions._law import Mixture as Mixture
from replicajax.distributions._rounding import cell_edges as cell_edges
from replicajax.distributions._rounding import distortion as distortion
from replicajax.distributions._rounding import distortion_of_cells as distortion_of_cells
from replicajax.distributions._rounding import stochastic_distortion as stochastic_distortion
from replicajax.distributions._rounding import thresholds as thresholds
from replicajax.distributions._symmetric import Symmetric as Symmetric
