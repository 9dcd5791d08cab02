"""
Numbers from texts
==================

:class:`~sklstm.LSTMTextRegressor` predicts numbers. Here it guesses from the first words of a
docstring how long the docstring is.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklstm import LSTMTextRegressor
from sklstm.datasets import load_docstrings

words = [text.split() for text in load_docstrings().data]
texts = [" ".join(row[:12]) for row in words]
lengths = np.log2([len(row) for row in words])
train_texts, test_texts, train_y, test_y = train_test_split(
    texts, lengths, test_size=0.25, random_state=0
)
print(f"2 ** {train_y[0]:.1f} words |", train_texts[0], "...")

# %%
# Fit and predict
# ---------------
# ``y`` is standardised inside, so its units do not matter.

reg = LSTMTextRegressor(max_epochs=5, random_state=0, verbose=1).fit(
    train_texts, train_y
)
ridge = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), Ridge())
ridge.fit(train_texts, train_y)
for name, model in (
    ("LSTMTextRegressor", reg),
    ("TF-IDF + ridge regression", ridge),
):
    predicted = model.predict(test_texts)
    r2, error = (
        r2_score(test_y, predicted),
        mean_absolute_error(test_y, predicted),
    )
    print(f"{name:26} R2 {r2:.3f}, mean absolute error {error:.3f}")

# %%
# Where it errs
# -------------

figure, axes = plt.subplots(figsize=(4.5, 4), layout="constrained")
axes.scatter(test_y, reg.predict(test_texts), s=6, alpha=0.4)
axes.plot([3, 8], [3, 8], color="black", linewidth=1)
axes.set(xlabel="binary logarithm of the length", ylabel="predicted")
plt.show()

# %%
# Several numbers per text
# ------------------------
# A ``y`` with several columns has predictions of that shape.

commas = np.array(
    [text.count(",") for text in texts[: len(train_texts)]], dtype=float
)
both = np.column_stack([train_y, commas])
print(
    LSTMTextRegressor(max_epochs=1, random_state=0)
    .fit(train_texts, both)
    .predict(test_texts[:3])
)
