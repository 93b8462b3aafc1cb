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

    def _at(self, x: np.ndarray, which: np.ndarray):
        """Positions in x, values and solution, one number of bits after the other."""
        values = {key: v[which] for key, v in self.values.items()} | {self.name: x}
        for where, part in self.sweep.batches(values):
            yield where, part, solve_many(*self.sweep.problem(part), self.devices)

    def solve(self, x: np.ndarray, which: np.ndarray, of: str) -> tuple[np.ndarray, np.ndarray]:
        """The observable at x in the slices `which`, and whether it converged."""
        value, converged = np.zeros(x.size), np.zeros(x.size, bool)
        for where, _, found in self._at(x, which):
            value[where], converged[where] = getattr(found, of), found.converged
        return value, converged

    def differentiate(self, x: np.ndarray, which: np.ndarray, of: str, names: Sequence[str] = ()) -> np.ndarray:
        """(2 + n, points): the observable, its derivative along the slice, and along each of `names`."""
        out = np.zeros((2 + len(names), x.size))
        for where, part, found in self._at(x, which):
            directions = [self.sweep.direction(part, name) for name in (self.name, *names)]
            rows = [slopes_many(found, d, of=of, devices=self.devices) for d in directions]
            out[:, where] = getattr(found, of), *rows
        return out

    def differentiate_twice(self, x: np.ndarray, which: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
        """(3 + n, points): eg, d eg along the slice, the derivative of that along the slice, and along each of `names`."""
        out = np.zeros((3 + len(names), x.size))
        for where, part, found in self._at(x, which):
            along = self.sweep.direction(part, self.name)
            rows = [self._second(part, found, along, name) for name in (self.name, *names)]
            first = slopes_many(found, along, devices=self.devices)
            out[:, where] = found.generalization_error, first, *rows
        return out

    def _second(self, part: dict[str, np.ndarray], found: Solution, along: Direction, name: str) -> np.ndarray:
        second = slopes_many(found, along, self.sweep.direction(part, name), devices=self.devices)
        bend = self.sweep.bend(part, self.name, name)
        return second if bend is None else second + slopes_many(found, bend, devices=self.devices)
