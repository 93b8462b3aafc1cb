"""Every benchmark in turn; each prints ratios measured in one run, since absolute times drift from machine to machine."""

import jax

jax.config.update("jax_enable_x64", True)

from benchmarks import saddle  # noqa: E402

saddle.report()
