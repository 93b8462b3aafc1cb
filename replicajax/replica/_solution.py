"""What a solved theory says: order parameters and the observables of theory 1.3."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from replicajax import _checks
from replicajax.codebooks import Codebook
from replicajax.models import Classification, Fields, Task, Taught
from replicajax.replica._equations import heat_of
from replicajax.replica._search import Outcome

_ROUNDING = 1e-9
"""An entropy is called negative only below minus this."""


class Solution(eqx.Module):
    """The replica-symmetric solution at one (task, codebook, beta); prints itself as a table.

    Errors are mean squares per label; energies and the free energy are per weight.  Under `jax.vmap` every field gains
    the batch axis.
    """

    task: Task
    codebook: Codebook
    beta: Float[Array, ""]

    overlap: Float[Array, ""]
    """m = w0·<w>/N, overlap with the teacher; NaN where nobody knows one.  That of predictions is `label_overlap`."""
    self_overlap: Float[Array, ""]
    """Q = <w²>/N, of one Gibbs sample."""
    replica_overlap: Float[Array, ""]
    """q = <w>²/N, between two Gibbs samples; equal to `self_overlap` at beta = inf."""
    susceptibility: Float[Array, ""]
    """chi = beta (Q − q); inf where the codebook interpolates at beta = inf."""
    label_overlap: Float[Array, ""]
    """m_x = w0ᵀΣ<w>/N, Σ the covariance of the features (1 unless told): the overlap of truth and mean prediction."""
    label_self_overlap: Float[Array, ""]
    """Q_x = <wᵀΣw>/N, of the predictions of one Gibbs sample."""
    label_replica_overlap: Float[Array, ""]
    """q_x = <w>ᵀΣ<w>/N, of those of two."""
    label_susceptibility: Float[Array, ""]
    """chi_x = beta (Q_x − q_x)."""
    fields: Fields
    """Conjugate fields (m_hat, chi_hat, L); in units of 1/beta, 1/beta², 1/beta where `interpolates`."""
    generalization_error: Float[Array, ""]
    """Of the mean predictor <w>: eg = signal − 2 m + q of a regression, label noise excluded; see `Task.error_is`."""
    gibbs_error: Float[Array, ""]
    """eg + Q − q, of one Gibbs sample, label noise excluded."""
    rounded_error: Float[Array, ""]
    """The same of every weight at its most probable level, the model one would deploy.

    NaN for given data where more than 16 levels blur into one another."""
    test_error: Float[Array, ""]
    """On fresh labels: eg + noise of a regression, the classification error of a classification."""
    test_loss: Float[Array, ""]
    """Mean loss of <w> on fresh labels."""
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
    breaking: Int[Array, ""]
    """Steps of replica symmetry breaking, 0 or 1."""
    parisi: Float[Array, ""]
    """y_P, the Parisi parameter; beta in replica symmetry."""
    inner_overlap: Float[Array, ""]
    """q1, within a state of the broken measure; `replica_overlap` in replica symmetry, as is q0."""
    outer_overlap: Float[Array, ""]
    """q0, between two states."""
    complexity: Float[Array, ""]
    """y_P² df/dy_P, log of the number of states per weight in nats: 0 where f is largest."""
    state_error: Float[Array, ""]
    """`generalization_error` of the mean weights of a single state."""
    outer_replicon: Float[Array, ""]
    """Of states against each other, as `replicon` is of both: RS's only one."""
    replicon: Float[Array, ""]
    """1 − alpha/(1+chi)² E[(beta Var)²], or its like of theory 7.2, 7.3 and 9; RS is locally stable and AMP converges iff
    positive.  −inf at beta = inf.  With one step of breaking the lesser of those of states and within a state."""
    stable: Bool[Array, ""]
    """replicon > 0."""
    interpolates: Bool[Array, ""]
    """beta = inf only: the codebook fits the training labels exactly (chi infinite)."""
    converged: Bool[Array, ""]
    steps: Int[Array, ""]
    """Map evaluations used."""

    @property
    def classification_error(self) -> Float[Array, ""]:
        """Share of fresh labels that the sign of the mean prediction misses.

        Raises ValueError for a regression.
        """
        self._classes("classification_error")
        return self.generalization_error

    def _classes(self, what: str) -> Classification:
        """The task, if it has classes."""
        if not isinstance(self.task, Classification):
            raise ValueError(f"{what} is that of a Classification, got {type(self.task).__name__}")
        return self.task

    def calibration(self, confidence: ArrayLike) -> Float[Array, "..."]:
        """Share of labels 1 among the fresh rows of which the mean weights say 1/(1 + exp(−<w>·x)) = `confidence`.

        It is `confidence` where the classifier may be believed; less, of one above ½, where it is too sure of itself.

        Args:
          confidence: inside (0, 1), any shape.

        Raises:
          ValueError: a regression, or one that is not inside.

        Source: theory 7; Clarte, Loureiro, Krzakala and Zdeborova, arXiv:2202.03295.
        """
        task = self._classes("calibration")
        said = _checks.real("confidence", confidence)
        if not _checks.is_traced(said) and not np.all((_checks.known(said) > 0) & (_checks.known(said) < 1)):
            raise ValueError(f"confidence must be inside (0, 1), got {_checks.brief(said)}")
        return _calibration(task, said, self.label_overlap, self.label_replica_overlap)

    def capped(self, steps: int) -> Solution:
        """Not converged, if that took more steps."""
        soon = self.converged, self.steps
        if not _checks.is_traced(soon):
            soon = tuple(map(np.asarray, soon))
        return replace(self, converged=soon[0] & (soon[1] <= steps))

    @property
    def _scheme(self) -> str:
        return "one step" if self.breaking else "RS"

    @property
    def _standing(self) -> str:
        return "stable" if self.stable else f"unstable: {self._scheme} is not the equilibrium"

    def _of_states(self) -> list[tuple[str, Array, str]]:
        if not self.breaking:
            return []
        return [
            ("error of a state", self.state_error, "of its mean predictor"),
            ("inner overlap", self.inner_overlap, "q1, within a state"),
            ("outer overlap", self.outer_overlap, "q0, between states"),
            ("Parisi parameter", self.parisi, "y_P; breaks off at beta"),
            ("complexity", self.complexity, "nats per weight, of the number of states"),
            ("outer replicon", self.outer_replicon, "of states against each other"),
        ]

    def _of_labels(self) -> list[tuple[str, Array, str]]:
        if not isinstance(self.task, Taught) or self.task.features is None:
            return []
        return [
            ("label overlap", self.label_overlap, "m_x, of truth and mean prediction"),
            ("label self-overlap", self.label_self_overlap, "Q_x"),
            ("label replica overlap", self.label_replica_overlap, "q_x"),
            ("label susceptibility", self.label_susceptibility, "chi_x"),
        ]

    def __str__(self) -> str:
        if np.ndim(self.overlap):
            converged = np.asarray(self.converged)
            return f"Solution of shape {converged.shape}: {int(converged.sum())} of {converged.size} converged"
        rows = [
            ("generalization error", self.generalization_error, self.task.error_is),
            *(
                [("test error", self.test_error, "on fresh labels")]
                * bool(self.test_error != self.generalization_error)
            ),
            ("rounded error", self.rounded_error, "of the most probable levels"),
            ("training error", self.training_error, "energy per weight"),
            ("overlap", self.overlap, "m, with the teacher"),
            ("self-overlap", self.self_overlap, "Q"),
            ("replica overlap", self.replica_overlap, "q"),
            ("susceptibility", self.susceptibility, "chi"),
            *self._of_labels(),
            ("free energy", self.free_energy, "per weight"),
            (
                "entropy",
                self.entropy,
                "nats per weight" + f": negative, {self._scheme} cannot be right" * bool(self.entropy < -_ROUNDING),
            ),
            *self._of_states(),
            ("rate", self.rate, f"bits, of at most {self.codebook.bits:.4g}"),
            ("replicon", self.replicon, self._standing),
        ]
        state = f"converged in {int(self.steps)} steps" if self.converged else "NOT CONVERGED: do not use these numbers"
        if self.breaking:
            state += ", one step of replica symmetry breaking"
        if self.interpolates:
            state += ", interpolates the training labels"
        head = f"{self.task}\n{self.codebook}, beta {self.beta:.6g}: {state}"
        return "\n".join(
            [head, *(f"  {name:<21}{float(value):>15.9g}   {note}" for name, value, note in rows if value == value)]
        )


@eqx.filter_jit
def _calibration(
    task: Classification, said: Float[Array, "..."], overlap: Float[Array, ""], replica_overlap: Float[Array, ""]
) -> Float[Array, "..."]:
    v = jnp.log(said) - jnp.log1p(-said)
    return task.chance_of_one(v.ravel(), overlap, replica_overlap).reshape(v.shape)


@np.errstate(all="ignore")
def observe(xp: Any, task: Task, book: Codebook, beta, at: Outcome) -> Solution:
    """Every observable of theory 1.3, in `xp` (numpy or jax.numpy); `at` is in units of the signal, as is all here."""
    unit = xp.where(at.interpolates, 0.0, 1.0)
    dtype = np.result_type(*(x.dtype for x in jax.tree.leaves((task, book, beta))), np.float32)
    alpha, signal, ridge = task.alpha, task.signal, task.ridge
    noise, heat = task.noise / signal, xp.where(at.interpolates, 1.0, heat_of(xp, beta, signal))
    m, q, chi = at.m.value, at.q.value, at.chi.value  # v = Q − q in the place of chi where it interpolates
    L, t = xp.exp(at.state.log_L), xp.exp(at.state.log_t)
    own_m, own_q, own_chi = at.own
    spread = own_chi / heat  # Q − q
    Q, eg = own_q + spread, 1 - 2 * m + q
    R = eg + noise
    cold, warm = xp.isinf(beta), xp.isinf(heat) < 1

    taught = isinstance(task, Taught)
    # What nobody knows is felt by none.
    gain = 0.0 if task.turned else at.state.gain if at.state.gain is not None else 1.0
    label = m, q, chi
    if at.report is None:
        # e = (alpha/2) [chi/(beta (1+chi)) + R/(1+chi)²] + ½ ridge Q, of which only the last survives interpolation.
        loss = unit * alpha / 2 * (chi / (1 + chi) / heat + R / (1 + chi) ** 2)
        energetic = alpha / 2 * (xp.log1p(chi) / heat + R / (1 + chi))
        # beta (e − f) with everything that cancels left out.
        entropy = at.entropy - alpha / 2 * (xp.log1p(chi) - chi / (1 + chi))
        entropy = xp.where(at.interpolates, -xp.inf, entropy)
        level, stiffness = 1.0, alpha / (unit + chi) ** 2
        rounded_m, rounded_q, *_ = at.rounded
        errors = tuple(signal * x for x in (eg, eg + spread, 1 - 2 * rounded_m + rounded_q))
        test_error, test_loss = signal * R, signal * R / 2
    else:
        c, *errors, test_loss = at.report[:5]
        if c.label is not None:
            own_m = c.label.overlap / signal
            label = c.label.m / signal, c.label.q / signal, c.label.chi
        loss, energetic, (level, stiffness) = c.energy / signal, c.potential / signal, c.replicon
        entropy = at.entropy + c.entropy
        test_error = errors[0] + task.noise if taught and task.adds_noise else errors[0]
    label_m, label_q, label_chi = label
    energy = loss + ridge * Q / 2
    coupling = L * gain * m - L * (q + chi / heat) / 2 + L**2 * t * chi / 2
    f = xp.where(cold, energy, energetic + coupling - at.potential)  # at beta = inf there is nothing but energy
    square = xp.where(warm, at.response_square, 1.0)
    replicon = xp.where(warm, level - stiffness * square, -xp.inf)
    usage = xp.clip(at.usage[..., : book.levels.shape[-1]], 0.0, 1.0)
    rate = -(usage * xp.log2(xp.where(usage > 0, usage, 1.0))).sum(-1)

    def real(x):
        return xp.asarray(x, dtype)

    to_raw = xp.where(at.interpolates, 1 / signal, 1.0)
    error, gibbs_error, rounded_error = map(real, errors)
    return Solution(
        task=task,
        codebook=book,
        beta=real(beta),
        overlap=real(signal * own_m if taught else xp.nan * m),
        self_overlap=real(signal * Q),
        replica_overlap=real(signal * own_q),
        susceptibility=real(xp.where(at.interpolates, xp.inf, own_chi)),
        label_overlap=real(signal * label_m if taught else xp.nan * m),
        label_self_overlap=real(signal * (label_q + label_chi / heat)),
        label_replica_overlap=real(signal * label_q),
        label_susceptibility=real(xp.where(at.interpolates, xp.inf, label_chi)),
        fields=Fields(real(L * gain * to_raw), real(L**2 * t * signal * to_raw**2), real(L * to_raw)),
        generalization_error=error,
        gibbs_error=gibbs_error,
        rounded_error=rounded_error,
        test_error=real(test_error),
        test_loss=real(test_loss),
        training_error=real(signal * energy),
        free_energy=real(signal * f),
        entropy=real(entropy),
        usage=real(usage),
        rate=real(rate),
        breaking=xp.zeros(xp.shape(replicon), int),
        parisi=real(beta),
        inner_overlap=real(signal * own_q),
        outer_overlap=real(signal * own_q),
        complexity=real(0 * q),
        state_error=error,
        outer_replicon=real(replicon),
        replicon=real(replicon),
        stable=replicon > 0,
        interpolates=at.interpolates,
        converged=at.converged,
        steps=at.steps,
    )
