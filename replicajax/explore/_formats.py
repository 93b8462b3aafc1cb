"""The tab "Formats" in numbers: the error of one weight format, of its family, and of those that runtimes serve."""

from collections.abc import Iterator
from typing import NamedTuple

from replicajax import formats
from replicajax.cli._formats import Row, compare_standard, law_of, limits
from replicajax.codebooks import Codebook
from replicajax.distributions import Symmetric
from replicajax.explore._state import State

OF_TENSOR = 2**24
"""Weights that share one scale where there are no blocks."""
FLOATS = {"e2m1": (2, 1), "e2m3": (2, 3), "e3m2": (3, 2), "e4m3": (4, 3)}
_OF_ANY_BITS = ("int", "lloyd-max", "cube-root")
_BLOCKS = ("16", "32", "64", "128", "256")


class Found(NamedTuple):
    """What a step adds."""

    chosen: Row | None = None
    family: list[Row] = []
    standard: list[Row] = []
    limits: dict[str, float] = {}


def law_at(state: State) -> Symmetric:
    """The law of the weights."""
    if state.law == "generalized-normal":
        return formats.GeneralizedNormal(shape=state.shape)
    return law_of(state.law, state.df)


def element_at(law: Symmetric, state: State) -> Codebook:
    """The codebook of the elements."""
    if state.element == "int":
        return formats.integer(state.element_bits)
    if state.element == "lloyd-max":
        return formats.lloyd_max(law, state.element_bits)
    if state.element == "cube-root":
        if state.scaling == "rms":
            return formats.cube_root(law, state.element_bits)
        variant = "asymmetric" if state.scaling == "signmax" else "symmetric"
        size = OF_TENSOR if state.block == "none" else int(state.block)
        return formats.cube_root(law, state.element_bits, variant=variant, block_size=size, scaling=state.scaling)
    if state.element in FLOATS:
        return formats.floating_point(*FLOATS[state.element])
    return formats.nf4() if state.element == "nf4" else formats.sf4()


def format_at(law: Symmetric, state: State) -> formats.BlockFormat:
    """Raises ValueError for what the theory does not know."""
    element = element_at(law, state)
    if state.block == "none":
        return formats.BlockFormat(element, None if state.scaling == "rms" else OF_TENSOR, state.scaling)
    scale = None if state.scale == "none" else state.scale
    return formats.BlockFormat(element, int(state.block), state.scaling, scale)


def _row(law: Symmetric, state: State) -> Row:
    fmt = format_at(law, state)
    bits = fmt.element_bits if state.block == "none" else fmt.bits  # a scale of a tensor is shared by all too many
    many = state.element in _OF_ANY_BITS
    name = f"{state.element}{f', {state.element_bits} bits' if many else ''}"
    where = "one scale" if state.block == "none" else f"blocks of {state.block}"
    return Row("chosen", f"{name}, {where}", bits, float(formats.relative_rms_error(law, fmt)))


def chosen_and_family(state: State) -> Iterator[Found]:
    """The format, then its like: at other bits, or in blocks of other sizes where its bits are fixed."""
    law = law_at(state)
    yield Found(chosen=_row(law, state))
    yield Found(limits=limits(law))
    if state.element in _OF_ANY_BITS:
        others = [state.moved(element_bits=bits) for bits in range(2, 9)]
    else:
        others = [state] if state.block == "none" else [state.moved(block=block) for block in _BLOCKS]
    family = []
    for each in others:
        family.append(_row(law, each))
        yield Found(family=sorted(family, key=lambda row: row.bits))


def standards(state: State) -> Iterator[Found]:
    """Of `formats.menu("all")`, growing; those of 16 bits and more are off the picture."""
    law, rows = law_at(state), []
    for fmt in formats.menu("all"):
        if fmt.bits < 16:
            rows += compare_standard(law, [fmt])
            yield Found(standard=list(rows))
