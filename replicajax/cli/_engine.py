"""JAX, switched on once the request is known to be sound."""


def start(optimize: bool = True) -> None:
    """In float64, with compiled programs kept for the next run; without `optimize`, where compiling them well would take
    longer than running them."""
    import jax

    from replicajax import enable_cache

    jax.config.update("jax_enable_x64", True)
    if not optimize:  # else as the user has it
        jax.config.update("jax_disable_most_optimizations", True)
    enable_cache()
