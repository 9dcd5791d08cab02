"""
Text and other columns
======================

A table often has texts, numbers and categories. One estimator for each kind
of column, and a second one that learns how much each of them can be trusted,
uses all of it. The second one must be fitted to predictions for rows that
the first ones have not seen. :class:`sklearn.ensemble.StackingClassifier`
does that.
"""

import importlib
import inspect
import re
import warnings
from operator import itemgetter

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from sklstm import LSTMTextClassifier

# %%
# A table with two texts
# ----------------------
# The public functions, classes and methods of four libraries: the first
# sentence of the documentation, the first words on the arguments, and other
# columns. Which library is each from? Names of the libraries are taken out.
# Classes, and what is written in C, have no code of their own in Python, and
# what is written in C often has no signature: these values are missing.

MODULES = """
numpy numpy.fft numpy.linalg numpy.ma numpy.random scipy.integrate
scipy.interpolate scipy.linalg scipy.ndimage scipy.optimize scipy.signal
scipy.sparse scipy.spatial scipy.special scipy.stats sklearn.base
sklearn.cluster sklearn.covariance sklearn.datasets sklearn.decomposition
sklearn.ensemble sklearn.feature_selection sklearn.linear_model
sklearn.manifold sklearn.metrics sklearn.mixture sklearn.model_selection
sklearn.neighbors sklearn.pipeline sklearn.preprocessing sklearn.svm
sklearn.tree torch torch.distributions torch.fft torch.linalg torch.nn
torch.nn.functional torch.nn.init torch.optim torch.utils.data
""".split()
NAMES = r"(?i)\b(np|numpy|scipy|scikit-learn|sklearn|torch|pytorch)\b"
ARGUMENTS = (
    r"(?ms)^(Parameters\n-+|Args:|Arguments:)\n(.*?)(?=^(Returns|Shape)\b|\Z)"
)


def describe(thing):
    """Return a row of the table."""
    text = re.sub(NAMES, "", inspect.getdoc(thing))
    arguments = re.search(ARGUMENTS, text)
    words = arguments[2].split() if arguments else []
    try:
        names = list(inspect.signature(thing).parameters)
    except (TypeError, ValueError):
        names = None
    code = getattr(inspect.unwrap(thing), "__code__", None)
    return {
        "description": re.split(r"\.\s|\n\n", text)[0],
        "arguments": " ".join(words[:30]),
        "kind": type(thing).__name__,
        "first_argument": names[0] if names else None,
        "n_arguments": len(names) if names is not None else None,
        "n_lines": code and len({line for *_, line in code.co_lines()}),
        "n_words": len(text.split()),
    }


def find_things():
    """Yield what is public in the modules, with the library of each."""
    for name in MODULES:
        module = importlib.import_module(name)
        for thing in filter(callable, map(vars(module).get, dir(module))):
            members = vars(thing).items() if inspect.isclass(thing) else ()
            public = [m for k, m in members if k[0] != "_" and callable(m)]
            for one in [thing, *public]:
                if inspect.getdoc(one):
                    yield one, name.split(".")[0]


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of names that are deprecated
    table = pd.DataFrame(
        [
            describe(one) | {"library": library}
            for one, library in find_things()
        ]
    )
table = table.drop_duplicates(["description", "arguments"])
table = table.sample(2000, random_state=0)
train, test = train_test_split(
    table, test_size=0.25, random_state=0, stratify=table["library"]
)
print(table["library"].value_counts().to_string())
print(table.isna().mean().round(2).to_string())
print(train.iloc[0].to_string())

# %%
# One pipeline for each kind of column
# ------------------------------------
# Each gets the whole table and chooses its columns: ``itemgetter`` takes one
# column of texts. Boosted trees know what a missing number is, and the encoder
# gives a missing category a column of its own.

NUMBERS = ["n_arguments", "n_lines", "n_words"]


def read(column):
    return make_pipeline(
        FunctionTransformer(itemgetter(column)),
        LSTMTextClassifier(
            hidden_size=32,
            max_epochs=4,
            random_state=0,
        ),
    )


def grow_trees(numbers):
    encoder = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=10,
        sparse_output=False,
    )
    return make_pipeline(
        make_column_transformer(
            (encoder, ["kind", "first_argument"]), ("passthrough", numbers)
        ),
        HistGradientBoostingClassifier(max_iter=40, random_state=0),
    )


parts = {
    "description": read("description"),
    "arguments": read("arguments"),
    "columns": grow_trees(NUMBERS),
}
scores = {}


def score(name, model, rows=test):
    probabilities = model.predict_proba(rows)
    scores[name] = {
        "accuracy": model.score(rows, rows["library"]),
        "log loss": log_loss(rows["library"], probabilities),
    }


for name, part in parts.items():
    score(f"{name} only", part.fit(train, train["library"]))

# %%
# What goes wrong in sample
# -------------------------
# It is tempting to fit the classifiers of texts, and to give their
# probabilities to the trees as more columns. But these classifiers have seen
# the labels of the texts, and are right about nearly all of them. The trees
# learn to believe them and to ignore the other columns, which is no good for
# texts that the classifiers have not seen.

for rows, name in ((train, "seen in the fit"), (test, "new")):
    share = parts["description"].score(rows, rows["library"])
    print(f"descriptions {name}: {share:.1%} right")


def add_probabilities(rows):
    columns = {
        f"{name} {k}": column
        for name in ("description", "arguments")
        for k, column in enumerate(parts[name].predict_proba(rows).T)
    }
    return rows.assign(**columns)


more = add_probabilities(train)
in_sample = grow_trees(list(more.columns.difference(train.columns)) + NUMBERS)
in_sample.fit(more, train["library"])
score("both, in sample", in_sample, add_probabilities(test))

# %%
# Predictions out of fold
# -----------------------
# ``StackingClassifier`` fits each pipeline to two thirds of the rows, predicts
# the third that was left out, and so on until each row has a prediction out of
# fold. ``final_estimator`` learns from these how much each pipeline can be
# trusted. Then each pipeline is fitted to all rows: four fits altogether.
# Of 500 test rows an accuracy of 0.9 is known to about 0.013.

stack = StackingClassifier(
    list(parts.items()), final_estimator=LogisticRegression(), cv=3
)
score("both, out of fold", stack.fit(train, train["library"]))

table = pd.DataFrame(scores).T
print(table.round(3).to_string())
figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
axes.barh(table.index, table["log loss"])
axes.set(xlabel="log loss on the test rows, lower is better")
axes.invert_yaxis()
plt.show()
