"""Which law, as data: one program serves all the named laws, and another law compiles nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from replicajax import _checks
from replicajax.distributions._continuous import GeneralizedNormal, Laplace, Normal, StudentT
from replicajax.distributions._symmetric import Symmetric, table_of

_KINDS: dict[type, Callable[[Array, Array], Symmetric]] = {
    Normal: lambda shape, rms: Normal(rms),
    Laplace: lambda shape, rms: Laplace(rms),
    StudentT: lambda shape, rms: StudentT(shape, rms),
    GeneralizedNormal: lambda shape, rms: GeneralizedNormal(shape, rms),
}


@final
class AnyLaw(Symmetric):
    """One of the laws, `kind` says which, or a power of its density; with what does not depend on x, unless it is not known."""

    kind: Int[Array, ""]
    shape: Float[Array, ""]
    """df, or the exponent of a generalised normal law."""
    spread: Float[Array, ""]
    moment: Float[Array, ""] | None = None
    index: Float[Array, ""] | None = None
    log_peak: Float[Array, ""] | None = None
    table: Float[Array, " points"] | None = None

    def _each(self, of: Callable[[Symmetric], Any]) -> Any:
        unit = jnp.ones_like(self.shape)
        return jax.lax.switch(self.kind, [lambda build=build: of(build(self.shape, unit)) for build in _KINDS.values()])

    @property
    def dtype(self):
        return self.shape.dtype

    @property
    def scale(self):
        return self.spread

    def second_moment(self):
        assert self.moment is not None
        return self.moment

    @property
    def tail_index(self):
        assert self.index is not None
        return self.index

    def log_tails(self):
        return super().log_tails() if self.table is None else self.table

    def entropy(self):
        return self._each(lambda law: law.entropy()) + jnp.log(self.second_moment()) / 2

    def tempered(self, exponent):
        def of(law):
            other = law.tempered(exponent)
            return getattr(other, "df", getattr(other, "shape", self.shape)), other.scale / law.scale

        shape, wider = self._each(of)
        return AnyLaw(self.kind, shape, self.spread * wider)

    def _log_peak(self):
        return self._each(lambda law: law._log_peak()) if self.log_peak is None else self.log_peak

    def _log_shape(self, t):
        return self._each(lambda law: law._log_shape(t))

    def _beyond_shape(self, t):
        return self._each(lambda law: law._beyond_shape(t))

    def _tail_shape(self, t):
        return self._each(lambda law: law._tail_shape(t))


def as_data(law: Symmetric, *others: Any) -> Symmetric:
    """The law as `AnyLaw`, for a program that others share; itself under a transformation of JAX, or if it is none of them."""
    if type(law) not in _KINDS or _checks.is_traced((law, others)):
        return law
    shape = getattr(law, "df", getattr(law, "shape", 1.0))
    of = shape, law.rms, law.tail_index  # type: ignore[attr-defined]
    return _known_law(type(law), *(float(x) for x in of), jnp.result_type(float))  # in float64 once that is switched on


@lru_cache(256)
def _known_law(kind: type, shape: float, rms: float, tail_index: float, dtype: np.dtype) -> AnyLaw:
    of = (np.asarray(x, dtype) for x in (shape, rms, tail_index))
    return _any_law(np.asarray(list(_KINDS).index(kind), np.int32), *of)


@jax.jit
def _any_law(kind: Array, shape: Array, rms: Array, tail_index: Array) -> AnyLaw:
    log_peak, moment, table = table_of(AnyLaw(kind, shape, rms))
    return AnyLaw(kind, shape, rms / jnp.sqrt(moment), rms**2, tail_index, log_peak, table)
