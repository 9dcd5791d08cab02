"""Integrated gradients: what each token contributes to a prediction.

The path leads from a text of unknown tokens, without n-grams, straight to the text: embeddings and
features of n-grams grow together. Along it the gradient of what is explained is averaged. An input
contributes this mean times its distance from the beginning, and all contributions add up to the
difference of both ends (Sundararajan, Taly & Yan 2017, Axiomatic Attribution for Deep Networks).
Sizes: ``n`` texts, ``T`` steps, ``B`` rows of a batch, each a text at a point of its path.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sklstm.kernels.memory import reused_memory
from sklstm.kernels.surroundings import own_surroundings
from sklstm.kernels.transfer import send
from sklstm.model.blending import pool
from sklstm.model.explanation import Explanation, add_sentences
from sklstm.model.prediction import evaluating
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

# Points of each piece of the path. Where a maximum passes from one token to another the gradient
# jumps, so that more pieces help more than more points.
N_POINTS = 4
# A piece is halved where its contributions do not add up to the difference of its ends: in units of
# an output, of log-odds or of a regressor's standard deviation of y. This is the tolerance of the
# whole path; that of a piece is smaller by the root of its share, since the errors add up.
TOLERANCE = 3e-3
# In a piece this small what is left is a step: a text that repeats a word many times can take the
# LSTM from one state to another within less than float32 can resolve.
SMALLEST_PIECE = 2.0**-10
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
    weighted = model.blend.weighted_members
    others = [member for _, member, _ in weighted if not is_ngram_member(member)]
    if others or len(weighted) > 1:
        got = type(others[0]).__name__ if others else "several n-grams"
        raise ValueError(
            "explain needs blend='ngrams' or blend=None, since it differentiates all of the "
            f"prediction; got {got} in the blend. Fit with one of these, or use "
            "a method that asks for predictions only, such as LIME."
        )
    return DifferentiableMember(weighted[0][1], model.task) if weighted else None


class Found(NamedTuple):
    """What integrated gradients find of some texts."""

    columns: np.ndarray  # (n,) which output is explained
    values: np.ndarray  # (n,) what is explained, as it is predicted
    bases: np.ndarray  # (n,) the same at the beginning of the path
    network: list[np.ndarray]  # of each text (n_ids,)
    ngrams: list[np.ndarray] | None  # of each text (n_tokens,); None without a member


def attribute(model: TextModel, member, texts: list[str], target=None) -> Found:
    """Return what the ids and the tokens of texts contribute to the prediction of a target."""
    outputs = model.outputs(texts)
    columns = model.task.choose_columns(outputs, target)
    path = Path(model, member, texts, columns)
    values, units = path.explained(outputs), path.units()
    # Computed as the pieces between are: in float32, also where a prediction is in bfloat16.
    zeros, ones, every = np.zeros(len(texts)), np.ones(len(texts)), np.arange(len(texts))
    with own_surroundings(), evaluating(model.network), reused_memory():
        bases, ends = path.explain_at(every, zeros), path.explain_at(every, ones)
        pieces = Pieces(every, zeros, ones, bases, ends)
        while len(pieces.texts):
            wrong = path.integrate(pieces, tolerance=TOLERANCE * units)
            pieces = path.halve(pieces.take(wrong))
    return Found(columns, values, bases, *path.collect(texts))


class Pieces(NamedTuple):
    """Pieces of the paths of texts, and what is explained at their ends."""

    texts: np.ndarray  # (P,) the text of each
    begin: np.ndarray  # (P,) from 0 to 1
    end: np.ndarray  # (P,)
    at_begin: np.ndarray  # (P,)
    at_end: np.ndarray  # (P,)

    def take(self, rows: np.ndarray) -> "Pieces":
        """Return some of the pieces."""
        return Pieces(*(field[rows] for field in self))


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
        self.network, self.task, self.blend = _in_float32(model.network), model.task, model.blend
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

    def integrate(self, pieces: Pieces, *, tolerance: np.ndarray) -> np.ndarray:
        """Add the contributions of pieces; return which (k,) are too wrong, and not added.

        By Gauss-Legendre quadrature on each piece; ``tolerance`` (n,) is that of the texts.
        """
        points, weights = np.polynomial.legendre.leggauss(N_POINTS)
        widths = pieces.end - pieces.begin
        points = pieces.begin[:, None] + widths[:, None] * (points + 1) / 2
        weights = widths[:, None] * weights / 2
        lengths = self.ids.lengths[pieces.texts]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        of_ids = np.zeros(offsets[-1])
        slopes = [np.zeros((len(lengths), total.shape[1])) for total in self.slopes]
        for rows, numbers in _batches(lengths, N_POINTS):
            at = points[rows, numbers]
            found = self._differentiate(pieces.texts[rows], at)
            step = np.arange(len(found[0]))[:, None]
            live = step < lengths[rows]
            share = weights[rows, numbers]
            np.add.at(of_ids, (offsets[rows] + step)[live], (found[0] * share)[live])
            for total, own in zip(slopes, found[1:], strict=True):
                np.add.at(total, rows, own * share[:, None])
        sums = np.add.reduceat(of_ids, offsets[:-1])
        for own, products in zip(slopes, self.products, strict=True):
            sums += (own * products[pieces.texts]).sum(axis=1)
        missing = pieces.at_end - pieces.at_begin - sums
        is_right = np.abs(missing) <= tolerance[pieces.texts] * np.sqrt(widths)
        is_step = ~is_right & (widths <= SMALLEST_PIECE)
        for row in np.flatnonzero(is_right | is_step):
            text = pieces.texts[row]
            of_piece = of_ids[offsets[row] : offsets[row + 1]]
            if is_step[row]:
                of_piece += divide_step(missing[row], of_piece)
            self.of_ids[self.ids.offsets[text] : self.ids.offsets[text + 1]] += of_piece
            for total, own in zip(self.slopes, slopes, strict=True):
                total[text] += own[row]
        return np.flatnonzero(~(is_right | is_step))

    def halve(self, pieces: Pieces) -> Pieces:
        """Return both halves of each piece."""
        texts, begin, end, at_begin, at_end = pieces
        middle = (begin + end) / 2
        at_middle = self.explain_at(texts, middle)
        first = Pieces(texts, begin, middle, at_begin, at_middle)
        second = Pieces(texts, middle, end, at_middle, at_end)
        return Pieces(*map(np.concatenate, zip(first, second, strict=True)))

    @torch.no_grad()
    def explain_at(self, texts: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return what is explained (P,) at points (P,) of the paths of texts (P,)."""
        result = np.empty(len(texts))
        for rows, _ in _batches(self.ids.lengths[texts], 1):
            explained, *_ = self._explain_batch(texts[rows], points[rows])
            result[rows] = explained.numpy()
        return result

    def collect(self, texts: list[str]) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
        """Return the contributions of the ids and, through n-grams, of the tokens of each text."""
        of_ids = np.split(self.of_ids, self.ids.offsets[1:-1])
        if self.member is None:
            return of_ids, None
        shares = self.member.share_out(self.features, self.slopes)
        return of_ids, spread_over_tokens(self.member.ngrams, texts, shares)

    def _differentiate(self, texts, points) -> list[np.ndarray]:
        """Return contributions per unit of path (T, B), and slopes (B, R) of each linear model."""
        with torch.enable_grad():
            explained, way, vectors, products = self._explain_batch(texts, points)
        grad, *slopes = torch.autograd.grad(explained.sum(), [vectors, *products])
        of_steps = (grad * way).sum(dim=2).cpu().double()
        return [of_steps.numpy(), *(slope.numpy() for slope in slopes)]

    def _explain_batch(self, texts, points):
        """Return what is explained (B,) at points of texts, and what it is computed from."""
        ids, lengths = self.ids.pad(texts)
        ids = send(ids, self.device)
        start, way = self._embed(ids)
        vectors = (start + start.new_tensor(points)[:, None] * way).requires_grad_()
        products = [
            torch.from_numpy(product[texts] * points[:, None]).requires_grad_()
            for product in self.products
        ]
        pooled = self.network.read(Embedded(vectors), ids, lengths)
        outputs = self._blend(self.network.classify(pooled).cpu().double(), products)
        explained = self.task.explained(outputs, torch.from_numpy(self.columns[texts]))
        return explained, way, vectors, products

    @torch.no_grad()
    def _embed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings of unknown tokens, and the way from them to those of the ids."""
        ids = ids & ID_MASK
        embedding = self.network.embedding
        start = embedding(torch.where(ids == PADDING, PADDING, UNKNOWN))
        return start, embedding(ids) - start

    def _blend(self, outputs: Tensor, products: list[Tensor]) -> Tensor:
        """Return the outputs of network and member together, as ``Blend.apply``."""
        parts, weights = [outputs / self.blend.temperature], [self.blend.weights[0]]
        if self.member is not None:
            parts.append(self.member.outputs(products))
            weights += [weight for *_, weight in self.blend.weighted_members]
        return pool(parts, weights)


def _in_float32(network):
    """Return a network of the same weights that computes in float32, so that sums are exact."""
    twin = copy.copy(network)
    twin.settings = replace(network.settings, precision="float32")
    return twin


def divide_step(height: float, contributions: np.ndarray) -> np.ndarray:
    """Return a step of what is explained, divided by the sizes of the contributions at its foot.

    Right before and behind a step the gradient points to the inputs that move it.
    """
    sizes = np.abs(contributions)
    return height * (sizes / sizes.sum() if sizes.any() else np.full(len(sizes), 1 / len(sizes)))


def _batches(lengths: np.ndarray, n_points: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and numbers of points, both (B,): all points of each row, the longest first."""
    order = np.argsort(-lengths, kind="stable")
    rows, points = np.repeat(order, n_points), np.tile(np.arange(n_points), len(order))
    begin = 0
    while begin < len(rows):
        end = begin + max(1, STEPS_PER_BATCH // quantise(int(lengths[rows[begin]])))
        yield rows[begin:end], points[begin:end]
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
