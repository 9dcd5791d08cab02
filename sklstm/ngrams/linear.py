"""The linear models on features of n-grams: of classes, of label sets, and of numbers."""

from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.naive_bayes import NaiveBayesLogisticRegression
from sklstm.ngrams.ridge import ValidatedRidge
from sklstm.ngrams.vectorizer import NgramVectorizer
from sklstm.text.vectorizer import SequenceVectorizer


def make_logistic(n_classes: int = 2) -> LogisticRegression:
    """Return the logistic regression on TF-IDF, unfitted.

    With more than two classes newton-cg is usually faster than lbfgs, and with two it is slower.
    """
    solver = "newton-cg" if n_classes > 2 else "lbfgs"
    return LogisticRegression(C=10.0, max_iter=1000, solver=solver)


def _make_voting(n_classes: int) -> VotingClassifier:
    logistic = make_logistic(n_classes)
    members = [("logistic", logistic), ("naive_bayes", NaiveBayesLogisticRegression())]
    return VotingClassifier(members, voting="soft")


def _make_label_sets(n_labels: int) -> LinearLabelSets:
    return LinearLabelSets(make_logistic(), NaiveBayesLogisticRegression())


#: What a task says that y is -> what makes the linear model of it.
LINEAR = {
    "one class a text": _make_voting,
    "label sets": _make_label_sets,
    "numbers": lambda n_numbers: ValidatedRidge(),
}


def make_ngram_member(
    kind: str, vectorizer: SequenceVectorizer | None = None, *, n_outputs: int = 2
) -> Pipeline:
    """Return features of n-grams with the linear model for this kind of y, unfitted."""
    linear = LINEAR[kind](n_outputs)
    return Pipeline([("ngrams", NgramVectorizer(vectorizer)), ("linear", linear)])
