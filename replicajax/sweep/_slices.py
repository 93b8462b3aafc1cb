"""All slices of a sweep along one axis: the theory and its derivatives anywhere on each, not only on the grid."""

from collections.abc import Sequence

import numpy as np

from replicajax.replica import Device, Direction, Solution, slopes_many, solve_many
from replicajax.sweep._grid import Grid


class Slices:
    """One slice for every combination of the other axes, in C order."""

    def __init__(self, sweep: Grid, name: str, devices: Sequence[Device] = ()):
        self.sweep, self.name, self.devices = sweep, name, devices
        self.axis = list(sweep.axes).index(name)
        self.shape = tuple(n for i, n in enumerate(sweep.shape) if i != self.axis)
        index = [i.ravel() for i in np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij")]
        index.insert(self.axis, np.zeros(index[0].size if index else 1, int))
        self.values = sweep.values(index)
        self.everyone = np.arange(index[0].size)

    def solve(self, x: np.ndarray, which: np.ndarray, of: str) -> tuple[np.ndarray, np.ndarray]:
        """The observable at x in the slices `which`, and whether it converged."""
        value, converged = np.zeros(x.size), np.zeros(x.size, bool)
        for where, part in self._parts(x, which):
            found = solve_many(*self.sweep.problem(part), self.devices)
            value[where], converged[where] = getattr(found, of), found.converged
        return value, converged

    def slope(self, x: np.ndarray, which: np.ndarray) -> np.ndarray:
        """d eg along the slice at x."""
        out = np.zeros(x.size)
        for where, part in self._parts(x, which):
            out[where] = self.sweep.gradients(part, (self.name,), self.devices)[1][self.name]
        return out

    def differentiate(self, x: np.ndarray, which: np.ndarray, of: str, names: Sequence[str]) -> np.ndarray:
        """(1 + n, points): derivatives of the observable along the slice, and along each of `names`."""
        out = np.zeros((1 + len(names), x.size))
        for where, part in self._parts(x, which):
            found = solve_many(*self.sweep.problem(part), self.devices)
            directions = [self.sweep.direction(part, name) for name in (self.name, *names)]
            out[:, where] = [slopes_many(found, d, of=of, devices=self.devices) for d in directions]
        return out

    def bend(self, x: np.ndarray, which: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(1 + n, points): derivatives of d eg along the slice, along the slice and along each of `names`."""
        out = np.zeros((1 + len(names), x.size))
        for where, part in self._parts(x, which):
            found = solve_many(*self.sweep.problem(part), self.devices)
            along = self.sweep.direction(part, self.name)
            out[:, where] = [self._second(part, found, along, name) for name in (self.name, *names)]
        return out

    def _parts(self, x: np.ndarray, which: np.ndarray):
        """Positions in x, and values, one number of bits after the other."""
        values = {key: v[which] for key, v in self.values.items()} | {self.name: x}
        return self.sweep.batches(values)

    def _second(self, part: dict[str, np.ndarray], found: Solution, along: Direction, name: str) -> np.ndarray:
        second = slopes_many(found, along, self.sweep.direction(part, name), devices=self.devices)
        bend = self.sweep.bend(part, self.name, name)
        return second if bend is None else second + slopes_many(found, bend, devices=self.devices)
