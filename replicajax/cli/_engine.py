"""JAX, switched on once the request is known to be sound."""


def start() -> None:
    """In float64, with compiled programs kept for the next run."""
    import jax

    from replicajax import enable_cache

    jax.config.update("jax_enable_x64", True)
    enable_cache()
