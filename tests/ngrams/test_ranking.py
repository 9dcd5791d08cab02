"""The n-grams with the largest weights are those that decide."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline

from sklstm import LSTMTextClassifier, LSTMTextRegressor
from sklstm.ngrams.ranking import weigh_features
from tests.conftest import LABELS, TEXTS, TINY

WITH_NGRAMS = TINY | {"blend": "ngrams", "max_epochs": 1}
COLOURS = ["red apple", "red brick", "green pear", "green leaf", "blue sky", "blue sea"] * 5


def words(features):
    return [feature.ngram for feature in features if feature.kind == "word"]


def test_of_two_classes_one_speaks_against_the_other():
    clf = LSTMTextClassifier(**WITH_NGRAMS).fit(TEXTS * 4, LABELS * 4)
    top = clf.top_features(1000)
    assert list(top) == ["neg", "pos"]
    assert {"wonderful", "good"} <= set(words(top["pos"])) and "dull" in words(top["neg"])
    assert not {f.ngram for f in top["pos"] if f.kind == "word"} & set(words(top["neg"]))
    for features in top.values():
        weights = [feature.weight for feature in features]
        assert weights == sorted(weights, reverse=True) and min(weights) > 0


def test_of_many_classes_each_has_its_own():
    clf = LSTMTextClassifier(**WITH_NGRAMS).fit(COLOURS, [t.split()[0] for t in COLOURS])
    top = clf.top_features(2)
    assert {name: len(features) for name, features in top.items()} == dict.fromkeys(top, 2)
    for name, features in clf.top_features().items():
        assert words(features)[0] == name


def test_of_label_sets_and_numbers():
    red, long = [int("red" in t) for t in COLOURS], [int(len(t) > 8) for t in COLOURS]
    sets = LSTMTextClassifier(**WITH_NGRAMS).fit(COLOURS, np.column_stack([red, long]))
    assert words(sets.top_features()[0])[0] == "red"
    numbers = LSTMTextRegressor(**WITH_NGRAMS).fit(COLOURS, -100.0 * np.array(red))
    (features,) = numbers.top_features().values()
    assert words(features)[0] == "red" and features[words(features).index("red")].weight < 0
    sizes = [abs(feature.weight) for feature in features]
    assert sizes == sorted(sizes, reverse=True)


def test_a_weight_is_what_the_log_odds_rise_by():
    """Of a word that is the only one of its text, both models' mean comes near the weight."""
    clf = LSTMTextClassifier(**WITH_NGRAMS).fit(TEXTS * 4, LABELS * 4)
    ngrams, voting = clf.member_[0], clf.member_[1]
    names = ngrams.get_feature_names_out().tolist()
    weights = weigh_features(clf.member_)[1]
    features = ngrams.transform(TEXTS * 4).toarray()
    column = names.index("word__dull")
    has = features[:, column] > 0
    typical = np.sqrt((features[has, column] ** 2).mean())
    logistic, bayes = voting.estimators_
    wanted = (logistic.coef_[0, column] * typical + bayes.coef_[0, column]) / 2
    assert weights[column] == pytest.approx(wanted, rel=0.25)


def test_bad_input():
    with pytest.raises(NotFittedError):
        LSTMTextClassifier().top_features()
    clf = LSTMTextClassifier(**TINY | {"max_epochs": 1}).fit(TEXTS * 4, LABELS * 4)
    with pytest.raises(ValueError, match="needs blend='ngrams'.*got no second model"):
        clf.top_features()
    bayes = make_pipeline(CountVectorizer(), MultinomialNB())
    clf = LSTMTextClassifier(**WITH_NGRAMS | {"blend": bayes}).fit(TEXTS * 4, LABELS * 4)
    with pytest.raises(ValueError, match="got Pipeline as the blend"):
        clf.top_features()
    for n in (0, -1, 2.5, True, "all"):
        with pytest.raises(ValueError, match="n must be a whole number of 1 or more"):
            clf.top_features(n)
