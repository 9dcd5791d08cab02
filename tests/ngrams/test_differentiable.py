"""The member in torch is the member."""

import numpy as np
import pytest
import torch

from sklstm import LSTMTextClassifier
from sklstm.ngrams.differentiable import DifferentiableMember
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.member import ask_member, fit_member
from sklstm.tasks.multiclass import Multiclass
from sklstm.tasks.multilabel import Multilabel
from sklstm.tasks.regression import Regression
from sklstm.text.examples import Examples
from tests.conftest import LABELS, TEXTS, TINY, UNUSUAL

NUMBERS = np.column_stack([np.arange(10.0) % 4, np.arange(10.0) % 3])
SETS = np.column_stack([np.arange(10) % 2, np.arange(10) % 3 == 0, np.ones(10)]) > 0
CASES = {
    "two classes": (Multiclass(np.array(["neg", "pos"])), np.arange(10) % 2),
    "five classes": (Multiclass(np.arange(5)), np.arange(10) % 5),
    "a class is lacking": (Multiclass(np.arange(4)), np.arange(10) % 3),
    "two of three classes": (Multiclass(np.arange(3)), 2 * (np.arange(10) % 2)),
    "label sets": (Multilabel(np.arange(3)), SETS),
    "numbers": (Regression.of(NUMBERS, np.ones(10)), NUMBERS),
}


@pytest.fixture(params=CASES)
def fitted(request):
    task, targets = CASES[request.param]
    if isinstance(task, Regression):
        targets = task.encode(targets)
    estimator = make_ngram_member(task.kind, n_outputs=task.n_outputs)
    return fit_member(estimator, Examples(TEXTS, targets, np.ones(10)), task), task


def test_outputs_are_those_of_the_member(fitted):
    member, task = fitted
    ours, texts = DifferentiableMember(member, task), [*TEXTS, *UNUSUAL]
    products = [torch.from_numpy(p) for p in ours.multiply(ours.read(texts))]
    wanted = ask_member(member, texts, task)
    np.testing.assert_allclose(ours.outputs(products).numpy(), wanted, atol=1e-9)


def test_improbable_classes_are_cut_off_as_the_member_does():
    task, targets = CASES["five classes"]
    estimator = make_ngram_member(task.kind, n_outputs=5)
    member = fit_member(estimator, Examples(TEXTS, targets, np.ones(10)), task)
    for model in member[-1].estimators_:
        model.coef_ *= 1e3
    ours = DifferentiableMember(member, task)
    products = [torch.from_numpy(p) for p in ours.multiply(ours.read(TEXTS))]
    outputs = ours.outputs(products).numpy()
    assert outputs.min() == pytest.approx(np.log(1e-6))
    np.testing.assert_allclose(outputs, ask_member(member, TEXTS, task), atol=1e-9)


def test_shares_are_feature_times_coefficient_times_slope(fitted):
    member, task = fitted
    ours = DifferentiableMember(member, task)
    features = ours.read(TEXTS)
    rng = np.random.default_rng(0)
    slopes = [rng.normal(size=product.shape) for product in ours.multiply(features)]
    wanted = sum(
        seen.toarray() * (slope @ model.arrays[0])
        for seen, slope, model in zip(features, slopes, ours.models, strict=True)
    )
    np.testing.assert_allclose(ours.share_out(features, slopes).toarray(), wanted, atol=1e-12)


def test_a_loaded_member_is_the_same(tmp_path):
    clf = LSTMTextClassifier(**TINY | {"blend": "ngrams"}).fit(TEXTS * 4, LABELS * 4)
    clf.save(tmp_path / "clf.safetensors")
    loaded = LSTMTextClassifier.load(tmp_path / "clf.safetensors")
    for one, other in zip(clf.explain(TEXTS), loaded.explain(TEXTS), strict=True):
        np.testing.assert_array_equal(one.attributions, other.attributions)
