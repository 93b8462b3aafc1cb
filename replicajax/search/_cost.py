"""What training costs on a machine whose prices are given as a table.

    cost(M, N, b) = macs · M · N · price(b) + memory · M · b,        b the mean bits,

price(b) of a multiply-accumulate interpolated in log-log between the table's entries and extended beyond its ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from replicajax import _checks


@final
class TrainingCost(eqx.Module):
    """A cost function for `allocate_budget`.

    Attributes:
      bits, price: (k,) a table: what one multiply-accumulate of operands of so many bits costs; bits increase.
      macs: multiply-accumulates per weight and step (2: one for the prediction, one for the update).
      memory: cost of a bit of a weight, for the whole of training.
    """

    bits: Float[Array, " k"]
    price: Float[Array, " k"]
    macs: Float[Array, ""]
    memory: Float[Array, ""]

    def __init__(
        self,
        bits: ArrayLike | Sequence[float] = (1.0, 32.0),
        price: ArrayLike | Sequence[float] = (1 / 256, 4.0),
        macs: ArrayLike = 2.0,
        memory: ArrayLike = 0.0,
    ):
        """By default a multiplication costs (bits/16)², as the area of a multiplier does.

        Raises ValueError: bits that do not increase, prices not positive, tables of different lengths.
        """
        self.bits, self.price = _checks.positive("bits", bits), _checks.positive("price", price)
        if self.bits.ndim != 1 or self.bits.size < 2 or self.bits.shape != self.price.shape:
            raise ValueError(
                f"bits and price must be vectors of one length, at least 2, got shapes {self.bits.shape} and {self.price.shape}"
            )
        if not _checks.is_traced(self.bits) and bool((jnp.diff(self.bits) <= 0).any()):
            raise ValueError(f"bits must increase, got {_checks.brief(self.bits)}")
        self.macs = _checks.positive("macs", macs)
        self.memory = _checks.nonnegative("memory", memory)

    def __call__(self, size: Array, steps: Array, bits: Array) -> Array:
        mean = jnp.mean(jnp.asarray(bits, float))
        x, y = jnp.log(self.bits), jnp.log(self.price)
        at = jnp.log(mean)
        place = jnp.clip(jnp.searchsorted(x, at), 1, x.size - 1)
        slope = (y[place] - y[place - 1]) / (x[place] - x[place - 1])
        price = jnp.exp(y[place - 1] + slope * (at - x[place - 1]))
        return self.macs * size * steps * price + self.memory * size * mean

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainingCost:
        """Of a file with bits, price and, if wanted, macs and memory.

        Raises:
          FileNotFoundError, ValueError: no such file, not TOML, an unknown key, what the class refuses.
        """
        import tomllib

        try:
            table = tomllib.loads(Path(path).read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"cost file {str(path)!r} is not TOML: {error}") from None
        unknown = set(table) - {"bits", "price", "macs", "memory"}
        if unknown or not {"bits", "price"} <= set(table):
            raise ValueError(
                f"cost file {str(path)!r} must have bits and price (and may have macs, memory), got {', '.join(sorted(table))}"
            )
        return cls(**table)
