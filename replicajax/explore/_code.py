"""Copy as code: a program for each picture, which computes that picture's numbers with the library and nothing else.

Every program leaves them under the names that its picture has for them.
"""

import math

from replicajax.explore._state import OF_CLASSES, State

_HEAD = """import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
import replicajax as rj
"""


def _number(value: float) -> str:
    return "np.inf" if math.isinf(value) else f"{value:.4g}"


def _task(state: State) -> str:
    given = f"{_number(state.alpha)}, noise={_number(state.noise)}"
    loss = {"huber": "Huber(1.0)"}.get(state.loss, f"{state.loss.capitalize()}()")
    kind = "Classification" if state.loss in OF_CLASSES else "LinearRegression"
    return f"task = rj.{kind}({given}, loss=rj.losses.{loss})\n"


def _data(name: str, target: str) -> str:
    return f"""import pandas as pd

table = pd.read_csv({name!r})  # label and features as numbers
y, X = table.pop({target!r}).to_numpy(float), table.to_numpy(float)
task = rj.GivenData.standardized(X, y)
"""


def _posed(state: State, data: tuple[str, str] | None) -> str:
    return _HEAD + (_task(state) if data is None else _data(*data))


def _broken(state: State) -> str:
    return f", breaking={state.breaks!r}" if state.breaks else ""


def curve(state: State, data: tuple[str, str] | None = None) -> str:
    """Error against width; width, error, stable; best; ridge.  data: name and label column of a file."""
    ridge = "ridge = rj.ridge_regression(task, rj.optimal_ridge(task)).generalization_error\n"
    known = data is not None or state.loss == "square"
    return f"""{_posed(state, data)}beta, bits = {_number(state.beta)}, {state.bits}
found = rj.phase_diagram(task, bits, beta, axes={{"width": np.geomspace(0.1, 6.0, 49)}}{_broken(state)})
found = found.where(found.converged, drop=True)
width, error, stable = found.width.values, found.generalization_error.values, found.stable.values > 0
best = rj.optimal_width(task, bits, beta{_broken(state)})
{ridge if known else ""}print(np.column_stack([width, error, stable]))
print("best width", best.width, "error", best.generalization_error)
"""


def codebook(state: State, data: tuple[str, str] | None = None) -> str:
    """The current point; levels, usage, rate."""
    return f"""{_posed(state, data)}book = rj.uniform({state.bits}, {_number(state.width)})
solution = rj.solve(task, book, {_number(state.beta)}{_broken(state)})
levels, usage, rate = np.asarray(book.levels), np.asarray(solution.usage), float(solution.rate)
print(solution)
print(np.column_stack([levels, usage]))
"""


def phase_map(state: State) -> str:
    """Error over alpha and width; alpha, width, error, replicon."""
    alphas, widths = (40, 51) if state.loss == "square" else (12, 17)
    return f"""{_posed(state, None)}alphas, widths = np.geomspace(0.2, 8.0, {alphas}), np.geomspace(0.1, 6.0, {widths})
axes = {{"alpha": alphas, "width": widths}}
found = rj.phase_diagram(task, {state.bits}, {_number(state.beta)}, axes=axes)
alpha, width, replicon = found.alpha.values, found.width.values, found.replicon.values
error = found.generalization_error.where(found.converged).values
print(found)
"""


def weight_format(state: State) -> str:
    """One format; rel, bits; merit is Rel 2^bits."""
    laws = {"normal": "Normal()", "laplace": "Laplace()", "student-t": f"StudentT({_number(state.df)})"}
    law = laws.get(state.law, f"GeneralizedNormal(shape={_number(state.shape)})")
    size = str(2**24) if state.block == "none" else state.block
    if state.element == "cube-root" and state.scaling != "rms":
        variant = "asymmetric" if state.scaling == "signmax" else "symmetric"
        options = f", variant={variant!r}, block_size={size}, scaling={state.scaling!r}"
    else:
        options = ""
    floats = {"e2m1": "2, 1", "e2m3": "2, 3", "e3m2": "3, 2", "e4m3": "4, 3"}
    element = {
        "int": f"integer({state.element_bits})",
        "lloyd-max": f"lloyd_max(law, {state.element_bits})",
        "cube-root": f"cube_root(law, {state.element_bits}{options})",
    }.get(state.element) or (
        f"floating_point({floats[state.element]})" if state.element in floats else f"{state.element}()"
    )
    where = f"{'None' if state.scaling == 'rms' else size}, {state.scaling!r}"
    if state.block != "none":
        where = f"{size}, {state.scaling!r}, {None if state.scale == 'none' else state.scale!r}"
    bits = "element_bits" if state.block == "none" else "bits"
    return f"""{_HEAD}
f = rj.formats
law = f.{law}
chosen = f.BlockFormat(f.{element}, {where})
rel, bits = float(f.relative_rms_error(law, chosen)), chosen.{bits}
merit = rel * 2**bits
limit = float(f.shannon_lower_bound(law))  # no code has less Rel 2^bits, with many bits
print(rel, bits, merit, limit)
"""


def budget(state: State) -> str:
    """The best division; size, steps, bits, risk."""
    return f"""{_HEAD}
s = rj.scaling
best = rj.allocate_budget(
    lambda M: s.power_law(M, {_number(state.exponent)}, noise={_number(state.label_noise)}),
    lambda b: s.of_bits({state.error!r}, b[0], reach=4.0),
    rj.search.TrainingCost(),
    10**{_number(state.budget)},
    bits=[(2, 20)],
)
size, steps, bits, risk = best.size, best.steps, best.bits[0], float(best.risk.total)
print(size, steps, bits, risk)
"""
