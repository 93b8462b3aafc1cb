"""Which law, as data: one program serves all the named laws, and another law compiles nothing."""

from collections.abc import Callable
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from replicajax import _checks
from replicajax.distributions._continuous import GeneralizedNormal, Laplace, Normal, StudentT
from replicajax.distributions._symmetric import Symmetric

_KINDS: dict[type, Callable[[Array, Array], Symmetric]] = {
    Normal: lambda shape, rms: Normal(rms),
    Laplace: lambda shape, rms: Laplace(rms),
    StudentT: lambda shape, rms: StudentT(shape, rms),
    GeneralizedNormal: lambda shape, rms: GeneralizedNormal(shape, rms),
}


@final
class AnyLaw(Symmetric):
    """One of the laws, `kind` says which, or a power of its density; with what does not depend on x."""

    kind: Int[Array, ""]
    shape: Float[Array, ""]
    """df, or the exponent of a generalised normal law."""
    moment: Float[Array, ""]
    spread: Float[Array, ""]
    log_peak: Float[Array, ""]
    index: Float[Array, ""]

    def _each(self, of: Callable[[Symmetric], Any]) -> Any:
        return _each(self.kind, self.shape, of, jnp.sqrt(self.moment))

    @property
    def scale(self):
        return self.spread

    def second_moment(self):
        return self.moment

    @property
    def tail_index(self):
        return self.index

    def entropy(self):
        return self._each(lambda law: law.entropy())

    def tempered(self, exponent):
        def of(law):
            other = law.tempered(exponent)
            return other.scale, getattr(other, "df", getattr(other, "shape", self.shape)), other._log_peak()

        spread, shape, log_peak = self._each(of)
        return AnyLaw(self.kind, shape, jnp.full_like(shape, jnp.nan), spread, log_peak, jnp.full_like(shape, jnp.nan))

    def _log_peak(self):
        return self.log_peak

    def _log_shape(self, t):
        return self._each(lambda law: law._log_shape(t))

    def _beyond_shape(self, t):
        return self._each(lambda law: law._beyond_shape(t))

    def _tail_shape(self, t):
        return self._each(lambda law: law._tail_shape(t))


def _each(kind: Array, shape: Array, of: Callable[[Symmetric], Any], rms: Array) -> Any:
    return jax.lax.switch(kind, [lambda build=build: of(build(shape, rms)) for build in _KINDS.values()])


def as_data(law: Symmetric, *others: Any) -> Symmetric:
    """The law as `AnyLaw`, for a program that others share; itself under a transformation of JAX, or if it is none of them."""
    if type(law) not in _KINDS or _checks.is_traced((law, others)):
        return law
    kind = np.asarray(list(_KINDS).index(type(law)), np.int32)
    rms = law.rms  # type: ignore[attr-defined]
    return _any_law(kind, getattr(law, "df", getattr(law, "shape", np.ones((), rms.dtype))), rms)


@jax.jit
def _any_law(kind: Array, shape: Array, rms: Array) -> AnyLaw:
    def of(law):
        return law.second_moment(), law.scale, law._log_peak(), jnp.asarray(law.tail_index, rms.dtype)

    return AnyLaw(kind, shape, *_each(kind, shape, of, rms))
