"""The linear models on features of n-grams: of classes, of label sets, and of numbers."""

from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.ridge import ValidatedRidge
from sklstm.ngrams.vectorizer import NgramVectorizer
from sklstm.text.vectorizer import SequenceVectorizer


def make_logistic() -> LogisticRegression:
    """Return the logistic regression on TF-IDF, unfitted."""
    return LogisticRegression(C=10.0, max_iter=1000)


def _make_voting() -> VotingClassifier:
    members = [("logistic", make_logistic()), ("naive_bayes", NaiveBayesLogisticRegression())]
    return VotingClassifier(members, voting="soft")


def _make_label_sets() -> LinearLabelSets:
    return LinearLabelSets(make_logistic(), NaiveBayesLogisticRegression())


#: What a task says that y is -> what makes the linear model of it.
LINEAR = {
    "one class a text": _make_voting,
    "label sets": _make_label_sets,
    "numbers": ValidatedRidge,
}


def make_ngram_member(kind: str, vectorizer: SequenceVectorizer | None = None) -> Pipeline:
    """Return features of n-grams with the linear model for this kind of y, unfitted."""
    return Pipeline([("ngrams", NgramVectorizer(vectorizer)), ("linear", LINEAR[kind]())])
