"""
Several labels per text
=======================

A text can have several labels at once, or none: then ``y`` has a column of 0 and 1 for each label,
as scikit-learn's metrics and :class:`sklearn.neural_network.MLPClassifier` know it. The texts are
docstrings, and the labels are the arguments that the function takes.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_arguments

functions = load_arguments(n_arguments=8)
labels = pd.DataFrame(functions.target, columns=functions.target_names)
train_texts, test_texts, train_labels, test_labels = train_test_split(
    functions.data, labels, test_size=0.25, random_state=0
)
print(
    train_texts[0],
    "|",
    [name for name in labels if train_labels.iloc[0][name]],
)

# %%
# Fit and predict
# ---------------
# ``predict`` returns an indicator like ``y``, ``predict_proba`` the probability of each label. They
# do not add up to 1. ``classes_`` are the names of the columns.

clf = LSTMTextClassifier(max_epochs=5, random_state=0, verbose=1).fit(
    train_texts, train_labels
)
predicted = clf.predict(test_texts)
print(
    classification_report(
        test_labels, predicted, target_names=clf.classes_, zero_division=1
    )
)

# %%
# Labels given as lists
# ---------------------
# :class:`sklearn.preprocessing.MultiLabelBinarizer` turns lists of labels into columns, and
# predictions back into lists. Here the names of the columns do the same.

for text in (
    "Sum of the elements over a given axis.",
    "Draw samples from a normal distribution.",
):
    probabilities = clf.predict_proba([text])[0]
    print(
        text,
        [
            f"{clf.classes_[k]} {probabilities[k]:.2f}"
            for k in probabilities.argsort()[:-4:-1]
        ],
    )

# %%
# Another threshold
# -----------------
# ``predict`` says yes from a probability of 0.5 on. A lower threshold finds more labels and is
# wrong more often. Choose it on texts that are neither trained on nor tested on.

thresholds = np.linspace(0.05, 0.95, 19)
probabilities, right = (
    clf.predict_proba(test_texts),
    test_labels.to_numpy() == 1,
)
yes = [probabilities > threshold for threshold in thresholds]
precision = [right[y].mean() for y in yes]
recall = [y[right].mean() for y in yes]
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(thresholds, precision, label="precision")
axes.plot(thresholds, recall, label="recall")
axes.set(xlabel="threshold", ylabel="share", ylim=(0, 1))
axes.legend()
plt.show()
