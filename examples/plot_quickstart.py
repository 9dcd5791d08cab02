"""
From raw texts to labels
========================

Fit, predict, look at the training, keep the model: the first five minutes with
:class:`~sklstm.LSTMTextClassifier`. The texts are docstrings of four libraries, and the question
is which library each one comes from.
"""

import joblib
import matplotlib.pyplot as plt
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split

from sklstm import LSTMTextClassifier
from sklstm.datasets import load_docstrings

docstrings = load_docstrings()
train_texts, test_texts, train_labels, test_labels = train_test_split(
    docstrings.data, docstrings.target, test_size=0.25, random_state=0
)
print(train_labels[0], "|", train_texts[0])

# %%
# Strings in, labels and probabilities out
# ----------------------------------------

clf = LSTMTextClassifier(random_state=0, verbose=1).fit(
    train_texts, train_labels
)
print(classification_report(test_labels, clf.predict(test_texts)))

# %%
for text in (
    "Compute the eigenvalues of a sparse matrix.",
    "Fit the model to the training data.",
):
    probabilities = clf.predict_proba([text])[0]
    answer = {
        label: f"{p:.2f}"
        for label, p in zip(clf.classes_, probabilities, strict=True)
    }
    print(text, answer)

# %%
# What happened while it trained
# ------------------------------
# A tenth of the texts was held out to decide when to stop.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 3), layout="constrained"
)
epochs = range(1, clf.n_iter_ + 1)
left.plot(epochs, clf.loss_curve_, marker="o")
left.set(xlabel="epoch", ylabel="training loss", xticks=epochs)
right.plot(
    epochs,
    [row["valid_accuracy"] for row in clf.history_],
    marker="o",
    color="tab:orange",
)
right.set(xlabel="epoch", ylabel="accuracy on validation texts", xticks=epochs)
plt.show()

# %%
# Keep it
# -------

joblib.dump(clf, "docstrings.joblib")
print(
    joblib.load("docstrings.joblib").predict(
        ["Return a new tensor on the same device."]
    )
)
