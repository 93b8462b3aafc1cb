import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from replicajax.numerics import ndtr


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 2e-14), (np.float32, 5e-6)])
def test_both_tails_and_their_slopes(dtype, rtol):
    """Down to what its type can hold; the rest is 0."""
    z = np.linspace(-12, 8, 401) if dtype == np.float32 else np.linspace(-37, 8, 901)
    z = z.astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        value, slope = jax.vmap(jax.value_and_grad(ndtr))(jnp.asarray(z))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, special.ndtr(z.astype(float)), rtol=100 * rtol)
    np.testing.assert_allclose(value[z > -3], special.ndtr(z.astype(float))[z > -3], rtol=rtol)
    np.testing.assert_allclose(slope, stats.norm.pdf(z.astype(float)), rtol=100 * rtol)
