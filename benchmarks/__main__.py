"""`python -m benchmarks`: prints every table."""

import jax

from benchmarks import amp, cold, dynamics, formats, layers, others, phase_diagram, saddle, scaling

if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    cold.report()
    saddle.report()
    amp.report()
    phase_diagram.report()
    formats.report()
    layers.report()
    dynamics.report()
    scaling.report()
    others.report()
