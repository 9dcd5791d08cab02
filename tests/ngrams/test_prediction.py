"""What the member predicts without scikit-learn's checks is what its own method does."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklstm.ngrams import member as member_module
from sklstm.ngrams.linear import make_ngram_member
from sklstm.ngrams.member import ask_member
from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.prediction import can_predict, predict_proba
from sklstm.ngrams.vectorizer import NgramVectorizer
from sklstm.tasks.multiclass import Multiclass

WORDS = ["good", "bad", "film", "not", "plot", "the", "a", "fine", "poor", "dull", "!", "我们"]


def draw(n_texts, n_classes):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(n_texts)]
    return texts, rng.permutation(np.arange(n_texts) % n_classes)


def fit(n_classes):
    texts, labels = draw(120, n_classes)
    member = make_ngram_member("one class a text", n_outputs=n_classes).fit(texts, labels)
    return member, texts


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_the_bits_are_those_of_scikit_learn(n_classes):
    member, texts = fit(n_classes)
    assert can_predict(member)
    for some in (texts, texts[:1], [""], ["nothing known"], texts[:7]):
        assert np.array_equal(predict_proba(member, some), member.predict_proba(some))


def test_the_blend_takes_this_way(monkeypatch):
    member, texts = fit(3)
    task, asked = Multiclass(np.arange(3)), []
    expected = ask_member(member, texts, task)

    def note(*args):
        asked.append(args)
        return predict_proba(*args)

    monkeypatch.setattr(member_module, "predict_proba", note)
    assert np.array_equal(ask_member(member, texts, task), expected) and len(asked) == 1


def test_any_other_estimator_has_its_own_method():
    texts, labels = draw(60, 3)
    models = [("one", LogisticRegression()), ("other", NaiveBayesLogisticRegression())]
    others = [
        LogisticRegression(),
        VotingClassifier(models),
        VotingClassifier(models, voting="soft", weights=[1, 2]),
        VotingClassifier(models[::-1], voting="soft"),
        VotingClassifier([("three", clone(model)) for _, model in models[:1]], voting="soft"),
    ]
    for linear in others:
        member = make_pipeline(NgramVectorizer(), linear).fit(texts, labels)
        assert not can_predict(member), linear
    assert can_predict(
        make_pipeline(NgramVectorizer(), VotingClassifier(models, voting="soft")).fit(texts, labels)
    )
