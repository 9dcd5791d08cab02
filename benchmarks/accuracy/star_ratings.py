"""Stars as numbers: LSTMTextRegressor, ridge regression, and the classifier's expected star.

    python benchmarks/accuracy/star_ratings.py yelp_10k                # held-out rows of the file
    python benchmarks/accuracy/star_ratings.py yelp_10k --split test

The labels of the data set must be numbers. For the accuracy, predictions become the nearest star.
"""

from functools import partial

import numpy as np
from baselines import make_baseline
from data_sets import SPLITS, load_data_set
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from systems import network_alone, ngrams_alone
from tables_of_tasks import Table, make_parser

from sklstm import LSTMTextClassifier, LSTMTextRegressor

ALPHAS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]


def main():
    parser = make_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    options = parser.parse_args()
    data = load_data_set(options.data, options.split)
    if options.texts:
        data = data.draw(options.texts, seed=0)
    table = Table(options, f"{data.name}, {options.split}", n_texts=len(data.texts))
    measure = partial(score, stars=data.held_out_labels.astype(float))

    def predict(model):
        return model.predict(data.held_out_texts).astype(float)

    def expect(model):
        return model.predict_proba(data.held_out_texts) @ model.classes_.astype(float)

    table.add("TF-IDF + Ridge", partial(fit_ridge, data), {"": predict}, measure, random=False)
    parts = {
        "": predict,
        "LSTM only": lambda model: predict(network_alone(model)),
        "n-grams only": lambda model: predict(ngrams_alone(model)),
    }
    table.add("LSTMTextRegressor, defaults", partial(fit_ours, data), parts, measure)
    absolute = partial(fit_ours, data, loss="absolute_error")
    table.add("LSTMTextRegressor, absolute error", absolute, {"": predict}, measure)
    parts = {"its expected star": expect, "its most probable star": predict}
    table.add("LSTMTextClassifier", partial(fit_classifier, data), parts, measure)


def score(prediction, stars):
    """Return the errors of predictions, and how often the nearest star is right."""
    scale = np.unique(stars)
    nearest = scale[np.abs(prediction[:, None] - scale).argmin(axis=1)]
    return {
        "RMSE": float(np.sqrt(((prediction - stars) ** 2).mean())),
        "MAE": float(np.abs(prediction - stars).mean()),
        "accuracy": float((nearest == stars).mean()),
    }


def fit_ridge(data, seed):
    """Fit the baseline, whose penalty is chosen by cross-validation."""
    search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=5, scoring="neg_mean_squared_error")
    tfidf = make_baseline("tfidf", data.texts)[0]
    return make_pipeline(tfidf, search).fit(data.texts, data.labels.astype(float))


def fit_ours(data, seed, **settings):
    model = LSTMTextRegressor(random_state=seed, **settings)
    return model.fit(data.texts, data.labels.astype(float))


def fit_classifier(data, seed):
    return LSTMTextClassifier(random_state=seed).fit(data.texts, data.labels)


if __name__ == "__main__":
    main()
