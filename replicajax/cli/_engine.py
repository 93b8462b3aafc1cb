"""JAX, switched on once the request is known to be sound."""


def start(optimize: bool = True, many_points: bool = False) -> None:
    """In float64, with compiled programs kept for the next run; without `optimize`, where compiling them well would take
    longer than running them.  Compiled sooner than well, unless for `many_points`."""
    import jax

    from replicajax import _fusion, enable_cache

    jax.config.update("jax_enable_x64", True)
    if not optimize:  # else as the user has it
        jax.config.update("jax_disable_most_optimizations", True)
    if not many_points:
        _fusion.use_older()
    enable_cache()
