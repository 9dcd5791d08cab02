"""
Why a text has its label
========================

What each word contributes to a prediction, and what the n-grams have learnt in all. The texts are
docstrings of four libraries, and the question is which library each one comes from.
"""

import matplotlib.pyplot as plt
from sklearn.model_selection import train_test_split

from sklstm import LSTMTextClassifier, TokenAttributionDisplay
from sklstm.datasets import load_docstrings

docstrings = load_docstrings()
train_texts, test_texts, train_labels, test_labels = train_test_split(
    docstrings.data, docstrings.target, test_size=0.25, random_state=0
)
clf = LSTMTextClassifier(random_state=0).fit(train_texts, train_labels)
text = "Return the eigenvalues of a sparse matrix on the given device."
print(clf.predict([text])[0])

# %%
# The words of one text
# ---------------------
# Bars to the right speak for the class, bars to the left against it. Network
# and n-grams are explained together, so all bars add up to the log-odds of the
# prediction, minus those of a text of unknown words.

TokenAttributionDisplay.from_estimator(clf, text)
plt.show()

# %%
# Any class can be asked for, not only the predicted one.

for target in clf.classes_:
    (explanation,) = clf.explain([text], target=target)
    pairs = zip(explanation.attributions, explanation.tokens, strict=True)
    (best, token), *_ = sorted(pairs, reverse=True)
    print(
        f"{target}: {explanation.probability:.3f}; {token!r} adds {best:.2f}"
    )

# %%
# Mistakes
# --------
# Explanations help most where a prediction is wrong.

predicted = clf.predict(test_texts)
wrong = next(
    text
    for text, label, answer in zip(
        test_texts, test_labels, predicted, strict=True
    )
    if label != answer and len(text) < 100
)
TokenAttributionDisplay.from_estimator(clf, wrong)
plt.show()

# %%
# What the n-grams have learnt
# ----------------------------
# The linear models of the blend can be read as a whole: these n-grams raise
# the log-odds of each class most.

for label, features in clf.top_features(5).items():
    shown = ", ".join(f"{f.ngram!r} ({f.weight:.1f})" for f in features)
    print(f"{label}: {shown}")
