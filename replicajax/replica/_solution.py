"""What a solved theory says: order parameters and the observables of theory 1.3."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, Bool, Float, Int

from replicajax.codebooks import Codebook
from replicajax.models import (
    Fields,
    LinearRegression,
    Order,
    WeightAverages,
    coupling,
    energetic,
    order_from_averages,
    rounded_averages,
    weight_averages,
)
from replicajax.replica._saddle import Saddle

_ROUNDING = 1e-9
"""An entropy is called negative only below minus this."""


class Solution(eqx.Module):
    """The replica-symmetric solution at one (task, codebook, beta); prints itself as a table.

    Errors are mean squares per label; energies and the free energy are per weight.  Under `jax.vmap` every field gains
    the batch axis.
    """

    task: LinearRegression
    codebook: Codebook
    beta: Float[Array, ""]

    overlap: Float[Array, ""]
    """m = w0·<w>/N, overlap with the teacher."""
    self_overlap: Float[Array, ""]
    """Q = <w²>/N, of one Gibbs sample."""
    replica_overlap: Float[Array, ""]
    """q = <w>²/N, between two Gibbs samples; equal to `self_overlap` at beta = inf."""
    susceptibility: Float[Array, ""]
    """chi = beta (Q − q); inf where the codebook interpolates at beta = inf."""
    fields: Fields
    """Conjugate fields (m_hat, chi_hat, L); in units of 1/beta, 1/beta², 1/beta where `interpolates`."""
    generalization_error: Float[Array, ""]
    """eg = signal − 2 m + q, of the mean predictor <w>, label noise excluded."""
    gibbs_error: Float[Array, ""]
    """eg + Q − q, of one Gibbs sample, label noise excluded."""
    rounded_error: Float[Array, ""]
    """Error of every weight at its most probable level, the model one would deploy; label noise excluded."""
    test_error: Float[Array, ""]
    """eg + noise: mean squared error of <w> on fresh labels."""
    training_error: Float[Array, ""]
    """e = <H>/N, training energy per weight: ½ squared residuals + ½ ridge w²; equals d(beta f)/d beta."""
    free_energy: Float[Array, ""]
    """f per weight."""
    entropy: Float[Array, ""]
    """beta (e − f) in nats per weight; a codebook cannot have it negative, so RS is wrong where it is."""
    usage: Float[Array, " levels"]
    """Probability of each level."""
    rate: Float[Array, ""]
    """Entropy of `usage` in bits: what an entropy coder needs per weight."""
    replicon: Float[Array, ""]
    """1 − alpha/(1+chi)² E[(beta Var)²]; RS is locally stable and AMP converges iff positive. −inf at beta = inf."""
    stable: Bool[Array, ""]
    """replicon > 0."""
    interpolates: Bool[Array, ""]
    """beta = inf only: the codebook fits the training labels exactly (chi infinite)."""
    converged: Bool[Array, ""]
    steps: Int[Array, ""]
    """Map evaluations used."""

    def __str__(self) -> str:
        if np.ndim(self.overlap):
            converged = np.asarray(self.converged)
            return f"Solution of shape {converged.shape}: {int(converged.sum())} of {converged.size} converged"
        rows = [
            ("generalization error", self.generalization_error, "eg, mean predictor, noise excluded"),
            ("test error", self.test_error, "eg + noise"),
            ("rounded error", self.rounded_error, "of the most probable levels, noise excluded"),
            ("training error", self.training_error, "energy per weight"),
            ("overlap", self.overlap, "m, with the teacher"),
            ("self-overlap", self.self_overlap, "Q"),
            ("replica overlap", self.replica_overlap, "q"),
            ("susceptibility", self.susceptibility, "chi"),
            ("free energy", self.free_energy, "per weight"),
            (
                "entropy",
                self.entropy,
                "nats per weight" + (": negative, RS cannot be right" * bool(self.entropy < -_ROUNDING)),
            ),
            ("rate", self.rate, f"bits, of at most {self.codebook.bits:.4g}"),
            ("replicon", self.replicon, "stable" if self.stable else "unstable: RS is not the equilibrium"),
        ]
        state = f"converged in {int(self.steps)} steps" if self.converged else "NOT CONVERGED: do not use these numbers"
        if self.interpolates:
            state += ", interpolates the training labels"
        head = f"{self.task}\n{self.codebook}, beta {self.beta:.6g}: {state}"
        return "\n".join([head, *(f"  {name:<21}{float(value):>15.9g}   {note}" for name, value, note in rows)])


def describe(
    task: LinearRegression,
    book: Codebook,
    beta: Float[Array, ""],
    saddle: Saddle,
    averages: WeightAverages | None = None,
    rounded: WeightAverages | None = None,
) -> Solution:
    """Every observable of theory 1.3 at a saddle point, whose averages are computed here if not at hand."""
    interpolates, regime = saddle.interpolates, saddle.regime
    m, q, chi = saddle.order  # v = Q − q in the place of chi where it interpolates
    soft = (averages or weight_averages(regime.task, book, saddle.fields, regime.beta)).rounding
    at_level = order_from_averages(rounded or rounded_averages(regime.task, book, saddle.fields))
    spread = chi / regime.beta  # Q − q
    Q = q + spread
    true_chi = jnp.where(interpolates, jnp.inf, chi)
    R = task.residual_variance(m, q)

    # e = (alpha/2) [chi/(beta (1+chi)) + R/(1+chi)²] + ½ ridge Q, of which only the last survives interpolation.
    residual = task.alpha / 2 * (chi / (1 + chi) / beta + R / (1 + chi) ** 2)
    energy = jnp.where(interpolates, 0.0, residual) + task.ridge * Q / 2
    finite = Order(m, q, jnp.where(interpolates, 1.0, chi))
    f = energetic(task, finite, beta) + coupling(finite, saddle.fields, beta) - soft.potential
    f = jnp.where(interpolates, energy, f)
    # beta (e − f) with everything that cancels left out.
    entropy = soft.entropy - task.alpha / 2 * (jnp.log1p(finite.chi) - finite.chi / (1 + finite.chi))
    # The inf of zero temperature is put in last: a zero cotangent times inf would be NaN.
    frozen = jnp.isinf(regime.beta)
    curvature = task.alpha / (regime.unit + chi) ** 2
    replicon = jnp.where(frozen, -jnp.inf, 1 - curvature * jnp.where(frozen, 1.0, soft.response_square))
    usage = jnp.clip(soft.usage, 0.0, 1.0)
    eg = R - task.noise
    return Solution(
        task=task,
        codebook=book,
        beta=beta,
        overlap=m,
        self_overlap=Q,
        replica_overlap=q,
        susceptibility=true_chi,
        fields=saddle.fields,
        generalization_error=eg,
        gibbs_error=eg + spread,
        rounded_error=task.residual_variance(at_level.m, at_level.q) - task.noise,
        test_error=R,
        training_error=energy,
        free_energy=f,
        entropy=jnp.where(interpolates, -jnp.inf, entropy),
        usage=usage,
        rate=-xlogy(usage, usage).sum() / jnp.log(2.0),
        replicon=replicon,
        stable=replicon > 0,
        interpolates=interpolates,
        converged=saddle.converged,
        steps=saddle.steps,
    )
