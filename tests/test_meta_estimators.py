"""Every meta-estimator of scikit-learn once: the table in docs/meta_estimators.md is made here.

python tests/test_meta_estimators.py writes it anew.
"""

import inspect
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.feature_selection import RFE, RFECV, SelectFromModel, SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RANSACRegressor
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils import all_estimators

from sklstm import LSTMTextClassifier, LSTMTextRegressor, SequenceVectorizer
from tests.conftest import LABELS, TEXTS, TINY

PAGE = Path(__file__).parents[1] / "docs" / "meta_estimators.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->\n"
X, Y = TEXTS * 4, np.array(LABELS * 4)
NUMBERS = np.tile(np.arange(10.0), 4)
COLUMNS = np.column_stack([Y == "pos", np.arange(40) % 2 == 0]).astype(int)
CONTAINERS = {
    "list": lambda texts: list(texts),
    "array": lambda texts: np.array(texts, dtype=object),
    "frame of one column": lambda texts: pd.DataFrame({"text": texts}),
}


def clf(**parameters):
    return LSTMTextClassifier(**TINY | {"max_epochs": 4} | parameters)


def reg():
    return LSTMTextRegressor(**TINY | {"max_epochs": 4})


def vectorizer():
    return SequenceVectorizer(max_length=9)


def column(part):
    """A ColumnTransformer hands its one column over as a series."""
    return ColumnTransformer([("text", part, "text")])


GRID = {"lr": [0.01, 0.02]}
TARGETS = {"classes": Y, "numbers": NUMBERS, "columns of 0 and 1": COLUMNS}
TARGETS["columns of numbers"] = np.column_stack([NUMBERS, -NUMBERS])

#: Name -> how it is made, and what y is.
ROWS = {
    "Pipeline": (lambda: Pipeline([("clf", clf())]), "classes"),
    "Pipeline, vectorizer": (
        lambda: make_pipeline(vectorizer(), MaxAbsScaler(), LogisticRegression()),
        "classes",
    ),
    "Pipeline, features": (lambda: make_pipeline(clf(), LogisticRegression()), "classes"),
    "FeatureUnion": (
        lambda: make_pipeline(
            FeatureUnion([("ids", vectorizer()), ("net", clf())]), LogisticRegression()
        ),
        "classes",
    ),
    "ColumnTransformer": (
        lambda: make_pipeline(column(clf()), LogisticRegression()),
        "classes",
    ),
    "ColumnTransformer, vectorizer": (
        lambda: make_pipeline(column(vectorizer()), LogisticRegression(max_iter=1000)),
        "classes",
    ),
    "FrozenEstimator": (lambda: FrozenEstimator(clf().fit(X, Y)), "classes"),
    "GridSearchCV": (lambda: GridSearchCV(clf(), GRID, cv=2), "classes"),
    "RandomizedSearchCV": (lambda: RandomizedSearchCV(clf(), GRID, n_iter=1, cv=2), "classes"),
    "HalvingGridSearchCV": (
        lambda: HalvingGridSearchCV(clf(), GRID, cv=2, min_resources=20),
        "classes",
    ),
    "HalvingRandomSearchCV": (
        lambda: HalvingRandomSearchCV(clf(), GRID, cv=2, min_resources=20),
        "classes",
    ),
    "CalibratedClassifierCV": (lambda: CalibratedClassifierCV(clf(), cv=2), "classes"),
    "FixedThresholdClassifier": (
        lambda: FixedThresholdClassifier(clf(), threshold=0.4, pos_label="pos"),
        "classes",
    ),
    "TunedThresholdClassifierCV": (
        lambda: TunedThresholdClassifierCV(clf(), cv=2),
        "classes",
    ),
    "SelfTrainingClassifier": (lambda: SelfTrainingClassifier(clf()), "classes"),
    "VotingClassifier": (
        lambda: VotingClassifier([("a", clf()), ("b", clf(lr=0.01))], voting="soft"),
        "classes",
    ),
    "StackingClassifier": (
        lambda: StackingClassifier([("a", clf()), ("b", clf(lr=0.01))], cv=2),
        "classes",
    ),
    "BaggingClassifier": (lambda: BaggingClassifier(clf(), n_estimators=2), "classes"),
    "AdaBoostClassifier": (lambda: AdaBoostClassifier(clf(), n_estimators=2), "classes"),
    "OneVsRestClassifier": (lambda: OneVsRestClassifier(clf()), "classes"),
    "OneVsOneClassifier": (lambda: OneVsOneClassifier(clf()), "classes"),
    "OutputCodeClassifier": (lambda: OutputCodeClassifier(clf()), "classes"),
    "MultiOutputClassifier": (lambda: MultiOutputClassifier(clf()), "columns of 0 and 1"),
    "ClassifierChain": (lambda: ClassifierChain(clf()), "columns of 0 and 1"),
    "RFE": (lambda: RFE(clf()), "classes"),
    "RFECV": (lambda: RFECV(clf()), "classes"),
    "SelectFromModel": (lambda: SelectFromModel(clf()), "classes"),
    "SequentialFeatureSelector": (lambda: SequentialFeatureSelector(clf()), "classes"),
    "VotingRegressor": (lambda: VotingRegressor([("a", reg()), ("b", reg())]), "numbers"),
    "StackingRegressor": (
        lambda: StackingRegressor([("a", reg()), ("b", reg())], cv=2),
        "numbers",
    ),
    "BaggingRegressor": (lambda: BaggingRegressor(reg(), n_estimators=2), "numbers"),
    "AdaBoostRegressor": (lambda: AdaBoostRegressor(reg(), n_estimators=2), "numbers"),
    "MultiOutputRegressor": (lambda: MultiOutputRegressor(reg()), "columns of numbers"),
    "RegressorChain": (lambda: RegressorChain(reg()), "columns of numbers"),
    "RANSACRegressor": (lambda: RANSACRegressor(reg(), min_samples=9), "numbers"),
    "TransformedTargetRegressor": (
        lambda: TransformedTargetRegressor(reg(), func=np.log1p, inverse_func=np.expm1),
        "numbers",
    ),
}


TABLE = "checks that X has two dimensions: give it a frame of one column"
NUMBERS_ONLY = "takes matrices of numbers only: give it row numbers, as below"
FEATURES = "looks for columns of X to keep, and a text is one"
CHAIN = "appends what it predicts to X as more columns, which texts have not"
#: What scikit-learn's class cannot do with texts.
LIMITS = {
    "ColumnTransformer": "chooses columns by name: give it a frame",
    "ColumnTransformer, vectorizer": "chooses columns by name: give it a frame",
    "BaggingClassifier": TABLE,
    "BaggingRegressor": TABLE,
    "AdaBoostClassifier": TABLE,
    "AdaBoostRegressor": TABLE,
    "SelfTrainingClassifier": NUMBERS_ONLY,
    "OneVsOneClassifier": NUMBERS_ONLY,
    "RANSACRegressor": NUMBERS_ONLY,
    "ClassifierChain": CHAIN,
    "RegressorChain": CHAIN,
    "RFE": FEATURES,
    "RFECV": FEATURES,
    "SequentialFeatureSelector": FEATURES,
    "SelectFromModel": FEATURES,
}


def attempt(name, container):
    """Return whether a meta-estimator fits and predicts the texts of a container."""
    make, kind = ROWS[name]
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of eight classes in ten texts and the like
        try:
            model.fit(CONTAINERS[container](X), TARGETS[kind])
            ask = getattr(model, "predict", None) or model.transform
            return len(ask(CONTAINERS[container](TEXTS))) == len(TEXTS)
        except (AttributeError, IndexError, TypeError, ValueError):
            return False


def render():
    """Return the table of the page."""
    lines = [["estimator", "y", *CONTAINERS, "scikit-learn's limit"], ["---"] * 6]
    for name, (_, kind) in ROWS.items():
        cells = ["works" if attempt(name, container) else "no" for container in CONTAINERS]
        lines.append([name, kind, *cells, LIMITS.get(name, "")])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


@pytest.mark.slow
def test_the_table_of_the_page_is_what_happens():
    page = PAGE.read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0] == render()


def test_every_meta_estimator_is_in_the_table():
    parts = {"estimator", "estimators", "regressor", "steps", "transformers", "transformer_list"}
    meta = {
        name for name, kind in all_estimators() if parts & inspect.signature(kind).parameters.keys()
    }
    ours = {name.partition(",")[0] for name in ROWS}
    # It fills in numbers that are missing in a matrix of numbers.
    assert ours == meta - {"IterativeImputer"}
    limits = {name for name in ROWS if name in LIMITS}
    assert limits == LIMITS.keys()


def look_up(rows):
    return [X[row] for row in np.asarray(rows)[:, 0]]


@pytest.mark.parametrize(
    ("make", "y"),
    [
        (SelfTrainingClassifier, np.where(np.arange(40) < 30, Y == "pos", -1).astype(int)),
        (OneVsOneClassifier, Y),
        (lambda part: RANSACRegressor(part, min_samples=9, random_state=0), NUMBERS),
    ],
)
def test_row_numbers_where_only_numbers_are_taken(make, y):
    part = reg() if y.dtype == float else clf()
    rows = np.arange(len(X)).reshape(-1, 1)
    model = make(make_pipeline(FunctionTransformer(look_up), part))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(model.fit(rows, y).predict(rows)) == len(X)


if __name__ == "__main__":
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(head + BEGIN + render() + END + rest.partition(END)[2], encoding="utf-8")
