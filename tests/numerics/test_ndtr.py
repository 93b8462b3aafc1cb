import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from replicajax.numerics import ndtr


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_both_tails_and_their_slopes(dtype):
    """Down to what its type can hold; rounding z moves Phi by z² roundings."""
    z = np.linspace(-12, 8, 401) if dtype == np.float32 else np.linspace(-37, 8, 901)
    z = z.astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        value, slope = jax.vmap(jax.value_and_grad(ndtr))(jnp.asarray(z))
    assert value.dtype == dtype
    wide, rounding = z.astype(float), 4 * np.finfo(dtype).eps * (1 + z.astype(float) ** 2)
    assert (np.abs(value - special.ndtr(wide)) <= rounding * special.ndtr(wide)).all()
    assert (np.abs(slope - stats.norm.pdf(wide)) <= rounding * stats.norm.pdf(wide)).all()
