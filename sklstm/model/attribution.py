"""Integrated gradients: what each token contributes to a prediction.

The path leads from a text of unknown tokens, without n-grams, straight to the text: embeddings and
features of n-grams grow together. Along it the gradient of what is explained is averaged. An input
contributes this mean times its distance from the beginning, and all contributions add up to the
difference of both ends (Sundararajan, Taly & Yan 2017, Axiomatic Attribution for Deep Networks).
Sizes: ``n`` texts, ``T`` steps, ``B`` rows of a batch, each a text at a point of its path.
"""

import copy
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklstm.checks import level_of_user
from sklstm.kernels.memory import reused_memory
from sklstm.kernels.transfer import send
from sklstm.model.blending import pool
from sklstm.model.explanation import Explanation, add_sentences
from sklstm.model.prediction import compute_outputs, evaluating
from sklstm.model.text_model import TextModel
from sklstm.network.encoder import Embedded
from sklstm.network.sentences import find_sentences
from sklstm.ngrams.differentiable import DifferentiableMember
from sklstm.ngrams.origins import spread_over_tokens
from sklstm.ngrams.state import is_ngram_member
from sklstm.text.batching import RaggedIds, quantise
from sklstm.text.reading import shorten
from sklstm.text.sentences import ID_BITS, ID_MASK
from sklstm.text.special_tokens import PADDING, UNKNOWN

# Points of the path at first, and most of them. Texts whose contributions do not add up are
# computed anew with twice as many.
FEWEST_POINTS, MOST_POINTS = 8, 512
# How far the sum of the contributions may be from what is explained, in units of an output: of
# log-odds, or of a regressor's standard deviation of y.
TOLERANCE = 5e-3
# Steps of a batch, padding included, and texts that are read at a time.
STEPS_PER_BATCH = 2**13
TEXTS_PER_CHUNK = 2**9


def explain(model: TextModel, texts: list[str], target=None) -> list[Explanation]:
    """Return the explanation of each text.

    Raises
    ------
    ValueError
        If there is no such target, or the member of the blend is not that of n-grams.
    """
    member = choose_member(model)
    explanations = []
    for begin in range(0, len(texts), TEXTS_PER_CHUNK):
        chunk = texts[begin : begin + TEXTS_PER_CHUNK]
        explanations += describe(model, chunk, attribute(model, member, chunk, target))
    return explanations


def choose_member(model: TextModel) -> DifferentiableMember | None:
    """Return the member of n-grams; None where the prediction has none.

    Raises
    ------
    ValueError
        If it is another estimator.
    """
    member = model.blend.member
    if member is None or model.blend.weights[1] <= 0:
        return None
    if not is_ngram_member(member):
        raise ValueError(
            "explain needs blend='ngrams' or blend=None, since it differentiates all of the "
            f"prediction; got {type(member).__name__} as the blend. Fit with one of these, or use "
            "a method that asks for predictions only, such as LIME."
        )
    return DifferentiableMember(member, model.task)


class Found(NamedTuple):
    """What integrated gradients find of some texts."""

    columns: np.ndarray  # (n,) which output is explained
    values: np.ndarray  # (n,) what is explained
    bases: np.ndarray  # (n,) the same at the beginning of the path
    network: list[np.ndarray]  # of each text (n_ids,)
    ngrams: list[np.ndarray] | None  # of each text (n_tokens,); None without a member


def attribute(model: TextModel, member, texts: list[str], target=None) -> Found:
    """Return what the ids and the tokens of texts contribute to the prediction of a target."""
    outputs = model.outputs(texts)
    columns = model.task.choose_columns(outputs, target)
    path = Path(model, member, texts, columns)
    values, bases = path.explained(outputs), path.explained(path.first_outputs())
    tolerance = TOLERANCE * path.units()
    left, n_points = np.arange(len(texts)), FEWEST_POINTS
    while len(left) and n_points <= MOST_POINTS:
        path.integrate(left, n_points)
        errors = np.abs(bases + path.add_up() - values)
        left = left[~(errors <= tolerance)[left]]
        n_points *= 2
    if len(left):
        warnings.warn(
            f"The attributions of {len(left)} texts do not add up to what they explain; the "
            f"largest error is {errors[left].max():.2g}, of the text {texts[left[0]]!r:.40}. "
            "Explain with precision='float32'.",
            RuntimeWarning,
            stacklevel=level_of_user(),
        )
    return Found(columns, values, bases, *path.collect(texts))


class Path:
    """The ways from a text of unknown tokens to each text, and the sums of the gradients there.

    Parameters
    ----------
    model : TextModel
        What predicts.
    member : DifferentiableMember or None
        The n-grams of its blend.
    texts : list of str
        The texts.
    columns : ndarray of shape (n,)
        Which output of each is explained.
    """

    def __init__(self, model: TextModel, member, texts: list[str], columns: np.ndarray):
        self.network, self.task, self.blend = model.network, model.task, model.blend
        self.member, self.columns = member, columns
        self.ids = model.encode(texts)
        self.features = [] if member is None else member.read(texts)
        self.products = [] if member is None else member.multiply(self.features)
        self.of_ids = np.zeros(len(self.ids.ids))
        self.slopes = [np.zeros_like(product) for product in self.products]
        self.device = model.network.head.weight.device

    def explained(self, outputs: np.ndarray) -> np.ndarray:
        """Return what is explained (n,), from the outputs (n, C) of network and member."""
        columns = torch.from_numpy(self.columns)
        return self.task.explained(torch.from_numpy(outputs), columns).numpy()

    def units(self) -> np.ndarray:
        """Return by how much what is explained (n,) grows when its output grows by one."""
        zeros = np.zeros((len(self.columns), self.task.n_outputs))
        ones = zeros.copy()
        np.put_along_axis(ones, self.columns[:, None], 1.0, axis=1)
        return self.explained(ones) - self.explained(zeros)

    def first_outputs(self) -> np.ndarray:
        """Return the outputs (n, C) of network and member at the beginning of the path."""
        unknown = RaggedIds((self.ids.ids & ~ID_MASK) | UNKNOWN, self.ids.offsets)
        outputs = torch.from_numpy(compute_outputs(self.network, unknown))
        return self._blend(outputs, [torch.zeros(p.shape).double() for p in self.products]).numpy()

    def integrate(self, rows: np.ndarray, n_points: int) -> None:
        """Replace the sums of some texts by those of Gauss-Legendre quadrature."""
        for row in rows:
            self.of_ids[self.ids.offsets[row] : self.ids.offsets[row + 1]] = 0.0
        for slopes in self.slopes:
            slopes[rows] = 0.0
        points, weights = np.polynomial.legendre.leggauss(n_points)
        points, weights = (points + 1) / 2, weights / 2
        # By hand, since users may call this where torch records no gradients.
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            evaluating(self.network),
            reused_memory(),
        ):
            for texts, numbers in _batches(self.ids.lengths, rows, n_points):
                self._add(texts, points[numbers], weights[numbers])

    def add_up(self) -> np.ndarray:
        """Return the sum of the contributions to each text, (n,)."""
        sums = np.add.reduceat(self.of_ids, self.ids.offsets[:-1])
        for slopes, products in zip(self.slopes, self.products, strict=True):
            sums += (slopes * products).sum(axis=1)
        return sums

    def collect(self, texts: list[str]) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Return the contributions of the ids and, through n-grams, of the tokens of each text."""
        of_ids = np.split(self.of_ids, self.ids.offsets[1:-1])
        if self.member is None:
            return of_ids, None
        shares = self.member.share_out(self.features, self.slopes)
        return of_ids, spread_over_tokens(self.member.ngrams, texts, shares)

    def _add(self, texts, points, weights) -> None:
        """Add the gradients of rows, each one point of a text, to the sums."""
        ids, lengths = self.ids.pad(texts)
        start, way = self._embed(send(ids, self.device))
        at = start.new_tensor(points)
        vectors = (start + at[:, None] * way).requires_grad_()
        products = [
            torch.from_numpy(product[texts] * points[:, None]).requires_grad_()
            for product in self.products
        ]
        pooled = self.network.read(Embedded(vectors), send(ids, self.device), lengths)
        outputs = self.network.classify(pooled).cpu().double()
        explained = self.task.explained(
            self._blend(outputs, products), torch.from_numpy(self.columns[texts])
        )
        grad, *slopes = torch.autograd.grad(explained.sum(), [vectors, *products])
        found = (grad * way).sum(dim=2).detach().cpu().double().numpy() * weights
        step = np.arange(len(found))[:, None]
        live = step < self.ids.lengths[texts]
        np.add.at(self.of_ids, (self.ids.offsets[texts] + step)[live], found[live])
        for total, slope in zip(self.slopes, slopes, strict=True):
            np.add.at(total, texts, slope.numpy() * weights[:, None])

    @torch.no_grad()
    def _embed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of unknown tokens, and the way from them to those of the ids."""
        ids = ids & ID_MASK
        embedding = self.network.embedding
        start = embedding(torch.where(ids == PADDING, PADDING, UNKNOWN))
        return start, embedding(ids) - start

    def _blend(self, outputs: Tensor, products: list[Tensor]) -> Tensor:
        """Return the outputs of network and member together, as ``Blend.apply``."""
        parts = [outputs / self.blend.temperature]
        if self.member is not None:
            parts.append(self.member.outputs(products))
        return pool(parts, self.blend.weights[: len(parts)])


def _batches(
    lengths: np.ndarray, rows: np.ndarray, n_points: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield texts and numbers of points, both (B,): all points of long texts first."""
    order = rows[np.argsort(-lengths[rows], kind="stable")]
    texts, points = np.repeat(order, n_points), np.tile(np.arange(n_points), len(order))
    begin = 0
    while begin < len(texts):
        end = begin + max(1, STEPS_PER_BATCH // quantise(int(lengths[texts[begin]])))
        yield texts[begin:end], points[begin:end]
        begin = end


def describe(model: TextModel, texts: list[str], found: Found) -> list[Explanation]:
    """Return the explanations of texts from what their tokens contribute."""
    vectorizer, task = model.vectorizer, model.task
    whole = copy.copy(vectorizer).set_params(max_length=None)
    tokens, spans = whole.tokenize(texts), whole.locate_tokens(texts)
    sentences = _find_sentences(model, whole, texts)
    explanations = []
    for k, text in enumerate(texts):
        network = np.zeros(len(tokens[k]))
        read = shorten(
            list(range(len(network))), max_length=vectorizer.max_length, keep=vectorizer.keep
        )
        network[read] = found.network[k][: len(read)]  # an empty text has an id and no token
        ngrams = np.zeros(len(network)) if found.ngrams is None else found.ngrams[k]
        explanation = Explanation(
            text=text,
            tokens=tokens[k],
            spans=spans[k],
            network=network,
            ngrams=ngrams,
            target=task.name_column(found.columns[k]),
            probability=task.probability_of(found.values[k]),
            value=float(found.values[k]),
            base=float(found.bases[k]),
        )
        if sentences is not None:
            explanation = add_sentences(explanation, sentences[k])
        explanations.append(explanation)
    return explanations


def _find_sentences(model, whole, texts):
    """Return the numbers of tokens of each text's sentences; None where it is read as a whole."""
    if model.network.settings.read_by != "sentence":
        return None
    ids = RaggedIds(*whole.transform_ragged(texts, marks=True))
    marks = torch.from_numpy(ids.ids >> ID_BITS).split(ids.lengths.tolist())
    return [
        find_sentences(of_text[:, None], torch.tensor([len(of_text)]), device="cpu")
        .lengths[:, 0]
        .tolist()
        for of_text in marks
    ]
