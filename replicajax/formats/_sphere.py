"""One coordinate of a block of B normal weights divided by the block's RMS."""

from __future__ import annotations

from typing import final

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, gammaln
from jaxtyping import Array, Float

from replicajax.distributions import Symmetric


@final
class OnSphere(Symmetric):
    """Density proportional to (1 − t²/B)^((B − 3)/2) on |t| < sqrt B: t²/B ~ Beta(1/2, (B − 1)/2); unit RMS.  B >= 2."""

    size: Float[Array, ""]

    @property
    def scale(self):
        return jnp.ones(())

    def second_moment(self):
        return jnp.ones(())

    def _rest(self, t):
        return jnp.maximum(1 - t**2 / self.size, 0.0)

    def _log_peak(self):
        B = self.size
        return gammaln(B / 2) - gammaln((B - 1) / 2) - jnp.log(np.pi * B) / 2

    def _log_shape(self, t):
        rest = self._rest(t)
        return (self.size - 3) / 2 * jnp.log(jnp.where(rest > 0, rest, 1e-300))

    def _beyond_shape(self, t):
        return betainc((self.size - 1) / 2, 0.5, self._rest(t)) / (2 * jnp.exp(self._log_peak()))

    def _tail_shape(self, t) -> tuple[Array, Array, Array]:
        B, beyond = self.size, self._beyond_shape(t)
        edge = self._rest(t) ** ((B - 1) / 2)
        return beyond, edge * B / (B - 1), beyond + t * edge

    def tempered(self, exponent):
        raise NotImplementedError
