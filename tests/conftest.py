"""The suite runs in float64; CLI tests start their own processes."""

import jax

jax.config.update("jax_enable_x64", True)
