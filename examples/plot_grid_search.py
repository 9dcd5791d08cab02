"""
Grid search, compared with Naive Bayes
======================================

One search over two kinds of pipelines: the classifier is a step like any other, and so are the
parameters of its vectorizer.
"""

import matplotlib.pyplot as plt
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_docstrings

docstrings = load_docstrings()
texts, labels = docstrings.data[:1200], docstrings.target[:1200]

# %%
# Two grids, one search
# ---------------------
# ``n_jobs=2`` fits two candidates at a time, each on one thread. With 600 texts to learn from naive
# Bayes is hard to beat in accuracy, which is worth knowing before one pays for a network. Its
# probabilities are another matter: look at the log loss.

lstm = LSTMTextClassifier(random_state=0)
search = GridSearchCV(
    Pipeline([("clf", lstm)]),
    [
        {
            "clf": [lstm],
            "clf__vectorizer__min_df": [1, 2],
            "clf__hidden_size": [32, 64],
        },
        {
            "clf": [
                Pipeline(
                    [("counts", CountVectorizer()), ("nb", MultinomialNB())]
                )
            ],
            "clf__counts__ngram_range": [(1, 1), (1, 2)],
            "clf__nb__alpha": [0.1, 1.0],
        },
    ],
    cv=2,
    n_jobs=2,
    scoring=["accuracy", "neg_log_loss"],
    refit="accuracy",
).fit(texts, labels)

# %%
results = pd.DataFrame(search.cv_results_)
results["model"] = [
    ", ".join(
        [
            type(params["clf"]).__name__.replace("Pipeline", "MultinomialNB"),
            *(
                f"{name.split('__')[-1]}={value}"
                for name, value in params.items()
                if name != "clf"
            ),
        ]
    )
    for params in results["params"]
]
print(
    results.sort_values("rank_test_accuracy")[
        [
            "model",
            "mean_test_accuracy",
            "std_test_accuracy",
            "mean_test_neg_log_loss",
        ]
    ].to_string(index=False, float_format="%.3f")
)

# %%
figure, axes = plt.subplots(
    1, 2, figsize=(10, 3), sharey=True, layout="constrained"
)
colors = [
    "tab:orange" if name.startswith("LSTM") else "tab:gray"
    for name in results["model"]
]
panels = {
    "accuracy": results["mean_test_accuracy"],
    "log loss": -results["mean_test_neg_log_loss"],
}
for axis, (measure, values) in zip(axes, panels.items(), strict=True):
    axis.bar_label(
        axis.barh(results["model"], values, color=colors),
        fmt="%.2f",
        padding=3,
    )
    axis.set(xlabel=f"{measure}, mean over 2 folds")
    axis.margins(x=0.15)
axes[0].set_title("higher is better", fontsize="small")
axes[1].set_title("lower is better", fontsize="small")
axes[0].invert_yaxis()
plt.show()
