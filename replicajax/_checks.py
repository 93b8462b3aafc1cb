"""Argument checks: every public function says which argument is wrong, what it got and what it wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def is_traced(value: Any) -> bool:
    """Whether `value` has no numbers yet (inside `jit`, `grad`, `vmap`), so that only its shape can be checked."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def known(value: Any) -> Any:
    """A number as numpy's where it has one: arithmetic on it then compiles nothing."""
    return value if is_traced(value) else np.asarray(value)


def real(name: str, value: Any) -> Array:
    """`value` as a floating array; complex numbers, text and NaN are refused."""
    if is_traced(value):
        return jnp.asarray(value, dtype=jnp.result_type(value, float))
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a real number or an array of them, got {value!r}") from None
    if np.isnan(array).any():
        raise ValueError(f"{name} must not be NaN, got {brief(array)}")
    dtype = jnp.result_type(array, float)
    with np.errstate(over="ignore"):
        return jnp.asarray(array.astype(dtype), dtype)  # without it a program is made of each shape


def positive(name: str, value: Any, *, infinite: bool = False) -> Array:
    array = real(name, value)
    if not is_traced(array):
        numbers = np.asarray(array)
        if ((numbers <= 0) | (np.isinf(numbers) & (not infinite))).any():
            raise ValueError(f"{name} must be positive{'' if infinite else ' and finite'}, got {brief(array)}")
    return array


def scalar(name: str, value: Any) -> Array:
    array = positive(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a single number (use jax.vmap for many), got shape {array.shape}")
    return array


def nonnegative(name: str, value: Any) -> Array:
    array = real(name, value)
    if not is_traced(array) and ((np.asarray(array) < 0) | np.isinf(np.asarray(array))).any():
        raise ValueError(f"{name} must be finite and not negative, got {brief(array)}")
    return array


def variance(name: str, value: Any, *, zero: bool = False) -> Array:
    """As `positive` (or `nonnegative`), with a reminder that the argument is a variance and no deviation."""
    try:
        return nonnegative(name, value) if zero else positive(name, value)
    except ValueError as error:
        raise ValueError(f"{error} ({name} is a variance)") from None


def fraction(name: str, value: Any) -> None:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be a fraction in [0, 1), got {value!r}")


def integer(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
    return int(value)


def matrix(name: str, value: Any) -> Array:
    array = finite(name, value)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be a matrix (rows, columns) with at least one of each, got shape {array.shape}")
    return array


def vector(name: str, value: Any, length: int, of: str) -> Array:
    array = finite(name, value)
    if array.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},), one entry per {of}, got shape {array.shape}")
    return array


def finite(name: str, value: Any) -> Array:
    array = real(name, value)
    if not is_traced(array) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"{name} must be finite, got {brief(array)}")
    return array


def instance(name: str, value: Any, kind: type, example: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__} such as {example}, got {type(value).__name__}")


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
    return value


def brief(array: Any) -> str:
    """The value itself, or the first few entries of a long one."""
    array = np.asarray(array)
    if array.ndim == 0:
        return f"{array.item()}"
    flat = array.ravel()
    shown = ", ".join(f"{x:.6g}" for x in flat[:6])
    return f"[{shown}{', …' if flat.size > 6 else ''}]"


_ASYMMETRY, _NEGATIVE = 1e-6, 1e-6
"""Of the largest entry or eigenvalue, from which a matrix is not a second moment but a mistake."""


def second_moment(name: str, H: np.ndarray) -> np.ndarray:
    """Of finite numbers, a matrix or its eigenvalues: symmetric to the last digit; raises ValueError if it is none."""
    largest = np.abs(H).max()
    if largest == 0:
        raise ValueError(f"{name} must not be 0 throughout: no input ever differs from 0")
    if H.ndim == 1:
        if (-_NEGATIVE * largest > H).any():
            raise ValueError(f"{name} must have eigenvalues >= 0, got {H.min():.4g}")
        return np.maximum(H, 0)
    apart = np.abs(H - H.T).max()
    if apart > _ASYMMETRY * largest:
        raise ValueError(f"{name} must be symmetric, got entries that differ by {apart:.4g} (largest {largest:.4g})")
    if (np.diag(H) < 0).any():
        raise ValueError(f"{name} must have a diagonal >= 0, got {np.diag(H).min():.4g}")
    H = (H + H.T) / 2
    try:
        np.linalg.cholesky(H / largest + _NEGATIVE * np.trace(H / largest) * np.eye(len(H)))
    except np.linalg.LinAlgError:
        least: Any = np.linalg.eigvalsh(H)[0]
        raise ValueError(f"{name} must have eigenvalues >= 0, got {least:.4g}") from None
    return H
