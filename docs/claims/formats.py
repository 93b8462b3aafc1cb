"""[F]: optimal formats for weights.  Orr, Ribar, Luschi, arXiv 2505.12988; theory 4."""

import warnings

import jax.numpy as jnp
import numpy as np

import replicajax as rj
from docs.claims._claim import Evidence, above, agrees, below, claim, differs, mean_and_error, near

f = rj.formats
LAWS = {"normal": f.Normal(), "Laplace": f.Laplace(), "Student-t(5)": f.StudentT(5.0)}


@claim(
    "The cube-root rule is nearly the best codebook",
    source="[F]; Panter and Dite 1951",
    kind="asymptotic",
    falsified_by="an excess over the best codebook of as many levels that does not shrink with the bits, or a best "
    "codebook whose "
    "density of levels is not proportional to p^(1/3).",
)
def cube_root_rule() -> Evidence:
    r"""To minimise $\mathbb{E}(x - Q(x))^2$ with many levels, put them with density proportional to $p^{1/3}$, the cube
    root of that of the data. The best codebook for a finite number of levels (Lloyd and Max) is found from its own
    equations; at high rate both have $\mathrm{Rel}\cdot 2^b \to \sqrt{(\int p^{1/3})^3/12}/\sigma$.
    """
    bits = (2, 3, 4, 5, 6, 7)
    excess, rows = {}, []
    for name, law in LAWS.items():
        rule = np.array([float(f.relative_rms_error(law, f.cube_root(law, b))) for b in bits])
        best = np.array([float(f.relative_rms_error(law, f.lloyd_max(law, b))) for b in bits])
        excess[name] = rule / best - 1
        limit = float(f.panter_dite(law))
        rows += [
            above(f"{name}: excess of the rule at 2 bits", excess[name][0], 0.0),
            below(f"{name}: excess at 7 bits", excess[name][-1], 0.02),
            near(f"{name}: Rel·2ᵇ of the best codebook at 7 bits over its limit", best[-1] * 2**7 / limit, 1.0, 0.03),
        ]

    def draw(axes) -> None:
        for name, values in excess.items():
            axes.plot(bits, 100 * values, "o-", label=name)
        axes.set(xlabel="bits", ylabel="RMS error above the best codebook, %", yscale="log")
        axes.legend()

    return Evidence(rows, draw)


@claim(
    "Block scaling acts as a code of variable length",
    source="[F]",
    kind="exact",
    falsified_by="a block format of Normal weights below the best fixed-length codebook at equal total bits and block "
    "sizes that fit the scale's "
    "cost, or one of Student-t weights above it.",
)
def block_scaling() -> Evidence:
    r"""A block's scale adapts the grid to its largest weight, so that a weight's share of the bits depends on its block:
    what a fixed codebook spends on rare outliers everywhere, a block format spends only where they are. It wins when the
    law has heavy tails, and the win is bounded by what an entropy code (the grid whose code lengths follow the
    probabilities) reaches at the same bits. For light tails the scales cost more than they save. All errors are exact
    integrals over the block's largest weight.
    """
    sizes = (16, 32, 64, 128, 256)
    laws = {**LAWS, "Student-t(3)": f.StudentT(3.0)}
    found, rows = {}, []
    for name, law in laws.items():
        blocks = [f.BlockFormat(f.cube_root(law, 4, block_size=B), B, "absmax", "bf16") for B in sizes]
        cost = np.array([float(f.relative_rms_error(law, fmt)) * 2 ** float(fmt.bits) for fmt in blocks])
        fixed = float(f.relative_rms_error(law, f.lloyd_max(law, 4))) * 2**4
        coded = f.entropy_coded(law, 4.0)
        variable = float(coded.error) * 2**4
        found[name] = cost, fixed, variable
        rows.append(
            above(f"{name}: least Rel·2ᵇ of block formats over that of the entropy code", cost.min() / variable, 1.0)
        )
    heavy, light = found["Student-t(3)"], found["normal"]
    rows += [
        below(
            "Student-t(3): least Rel·2ᵇ of block formats over that of the best codebook", heavy[0].min() / heavy[1], 1.0
        ),
        above("normal: the same ratio", light[0].min() / light[1], 1.0),
    ]

    def draw(axes) -> None:
        for name, (cost, fixed, variable) in found.items():
            (line,) = axes.plot(sizes, cost, "o-", label=name)
            axes.axhline(fixed, color=line.get_color(), linestyle="--", linewidth=0.9)
            axes.axhline(variable, color=line.get_color(), linestyle=":", linewidth=0.9)
        axes.set(xlabel="block size", ylabel="Rel·2ᵇ at 4 bits and scale", xscale="log")
        axes.legend(title="dashed: best codebook\ndotted: entropy code")

    return Evidence(rows, draw)


@claim(
    "A fine grid with an entropy code is the best there is, but for a quarter of a bit",
    source="[F]; Gish and Pierce 1968",
    kind="asymptotic",
    falsified_by="a scalar format of fixed length below the coded grid at high rate, a coded grid below the Shannon "
    "bound, or another limit than 2^h/sqrt(12).",
)
def entropy_coded_limit() -> Evidence:
    r"""Where code lengths follow the probabilities, an even grid is the best scalar quantizer at high rate:
    $\mathrm{Rel}\cdot 2^b \to 2^{h}/(\sqrt{12}\,\sigma)$ with the differential entropy $h$ in bits, $\tfrac12\log_2(2\pi
    e/12) = 0.2546$ bits above what no code of any kind goes below. Against the best code of fixed length it saves more the
    heavier the tails are.
    """

    def coded(law, bits: float) -> float:
        return float(f.entropy_coded(law, bits).error) * 2**bits

    def fixed(law, bits: int) -> float:
        return float(f.relative_rms_error(law, f.lloyd_max(law, bits))) * 2**bits

    rows, saved = [], {}
    for name, law in LAWS.items():
        limit, bound = float(f.entropy_coded_limit(law)), float(f.shannon_lower_bound(law))
        fine = coded(law, 6.0)
        saved[name] = float(np.log2(fixed(law, 6) / fine))
        rows += [
            near(f"{name}: Rel·2ᵇ of the coded grid at 6 bits over its limit", fine / limit, 1.0, 2e-3),
            near(f"{name}: bits of that limit above the Shannon bound", np.log2(limit / bound), 0.254614, 1e-6),
            above(f"{name}: bits that coding saves at 6 bits", saved[name], 0.2),
        ]
    published = (2 * np.pi * np.e / 12) ** 0.5
    rows += [
        near("normal: the published limit", float(f.entropy_coded_limit(LAWS["normal"])), published, 1e-12),
        above("bits saved, Laplace over normal", saved["Laplace"] - saved["normal"], 0.0),
        above("bits saved, Student-t(5) over Laplace", saved["Student-t(5)"] - saved["Laplace"], 0.0),
    ]

    def draw(axes) -> None:
        bits = (1, 2, 3, 4, 5, 6)
        for name, law in LAWS.items():
            (line,) = axes.plot(bits, [coded(law, float(b)) for b in bits], "o-", label=name)
            axes.plot(bits, [fixed(law, b) for b in bits], "o--", color=line.get_color())
        axes.set(xlabel="bits per weight", ylabel="Rel·2ᵇ", yscale="log")
        axes.legend(title="solid: grid and entropy code\ndashed: best fixed length")

    return Evidence(rows, draw)


@claim(
    "Bits by Fisher information save bits",
    source="[F]",
    kind="asymptotic",
    falsified_by="a mean divergence of trained networks, over that predicted, that leaves 1 by more than three standard "
    "errors, or an allocation by Fisher information that loses as much as the same bits everywhere.",
)
def fisher_allocation() -> Evidence:
    r"""The outputs of a model move by $\mathrm{KL} \approx \tfrac12 \sum_i F_{ii}\, d_i^2$, with $F$ the Fisher information
    of the outputs in the weights. With $d_t^2 \propto \mathrm{RMS}_t^2\, 4^{-b_t}$ for tensor $t$, the bits that lose least
    at a given mean are

    $$ b_t = b_0 + \log_2 \mathrm{RMS}_t + \tfrac12 \log_2 f_t . $$

    Second order holds where the loss is small, and for the mean over quantization errors: in a small network a few
    directions carry most of the divergence, and a single network can lose half or twice what is predicted. So networks that
    scikit-learn trained on its digits, from eight starts, are quantized and their divergences measured.
    """
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    from replicajax.trials import compare_allocations, cube_root_formats, measure_divergence

    images, digits = load_digits(return_X_y=True)
    train, inputs, rules, bits = slice(1347), jnp.asarray(images[1347:] / 16), ("uniform", "fisher"), (4, 6)
    ratios, saved = {b: [] for b in bits}, []

    def logits(layers, x):
        *hidden, (w, c) = layers
        for weight, bias in hidden:
            x = jnp.tanh(weight @ x + bias)
        return w @ x + c

    for seed in range(8):
        network = MLPClassifier(
            (96, 48, 24), "tanh", alpha=0.01, learning_rate_init=0.003, max_iter=10, random_state=seed
        )
        with warnings.catch_warnings(action="ignore"):  # ten epochs are few, and it says so
            network.fit(images[train] / 16, digits[train])
        layers = [(jnp.asarray(w.T), jnp.asarray(c)) for w, c in zip(network.coefs_, network.intercepts_, strict=True)]
        fisher = f.fisher_diagonal(logits, layers, inputs)
        found = compare_allocations(logits, layers, inputs, (4.0,), rules=rules, fisher=fisher)
        saved.append(np.log2(float(found["uniform"][0].measured / found["fisher"][0].measured)) / 2)
        for b in bits:
            each = measure_divergence(logits, layers, inputs, cube_root_formats(layers, b), fisher=fisher)
            ratios[b].append(float(each.measured / each.predicted))

    def draw(axes) -> None:
        for b, values in ratios.items():
            axes.plot([b] * len(values), values, "o", color="tab:blue", alpha=0.4)
            mean, error = mean_and_error(values)
            axes.errorbar(b, mean, error, fmt="s", color="black", capsize=4)
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set(xlabel="bits", ylabel="measured over predicted divergence", xticks=bits)

    return Evidence(
        [
            *(agrees(f"measured over predicted divergence, {b} bits", *mean_and_error(ratios[b]), 1.0) for b in bits),
            differs("bits per weight saved by Fisher information at 4 bits", *mean_and_error(saved), 0.0),
            above("the same", mean_and_error(saved)[0], 0.0),
        ],
        draw,
        ["Eight networks of 64, 96, 48, 24 and 10 units; squares are means with their standard errors."],
    )
