"""
A language model, compared with n-grams
=======================================

What an LSTM learns from texts without labels, next to what counting finds: perplexity of texts
neither has seen, and texts that each writes. The n-gram models are NLTK's (``pip install nltk``);
without it they stay out. The texts are docstrings.
"""

import importlib.util
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from sklstm import LSTMLanguageModel, SequenceVectorizer
from sklstm.datasets import load_docstrings

texts = load_docstrings().data
train_texts, test_texts = train_test_split(
    texts, test_size=0.1, random_state=0
)
print(
    f"{len(train_texts):,} texts to learn from, {len(test_texts):,} held out"
)

# %%
# The LSTM
# --------
# Both directions are trained at once. Perplexity is that of the forward one: among how many equally
# probable words it is as uncertain. Words that come once are left out of the vocabulary: what is
# outside of it counts as one word, so that only models of one vocabulary can be compared.

vectorizer = SequenceVectorizer(min_df=2)
model = LSTMLanguageModel(
    vectorizer=vectorizer,
    hidden_size=128,
    n_negatives=512,
    dropout=0.2,
    max_epochs=8,
    validation_fraction=0.05,
    random_state=0,
    verbose=1,
)
start = time.perf_counter()
model.fit(train_texts)
seconds = {"LSTM": time.perf_counter() - start}
perplexity = {"LSTM": model.perplexity(test_texts)}

# %%
# N-grams
# -------
# The same tokens, with the same words unknown, and a boundary around each text. Witten-Bell
# interpolation trusts a context the more, the less often something new has followed it.


def read(texts):
    """Return the tokens of each text as the LSTM sees them."""
    whole = model.vectorizer_.get_params() | {
        "vocabulary": list(model.vectorizer_.vocabulary_)
    }
    reader = SequenceVectorizer(**whole | {"max_length": None}).fit(texts)
    ids, offsets = reader.transform_ragged(texts)
    tokens = reader.tokens_[ids].tolist()
    return [
        tokens[begin:end]
        for begin, end in zip(offsets[:-1], offsets[1:], strict=True)
    ]


def count_ngrams(order):
    """Return NLTK's model of so many words, and its perplexity on the test texts."""
    from nltk.lm import Vocabulary, WittenBellInterpolated
    from nltk.util import everygrams

    def pad(tokens):
        return ["<s>"] * max(1, order - 1) + tokens + ["</s>"]

    padded = [pad(tokens) for tokens in read(train_texts)]
    words = [word for tokens in padded for word in tokens if word != "<s>"] + [
        "<unknown>"
    ]
    ngrams = WittenBellInterpolated(
        order, vocabulary=Vocabulary(words, unk_label="<unknown>")
    )
    ngrams.fit(list(everygrams(tokens, max_len=order)) for tokens in padded)
    log_likelihood, n_tokens = 0.0, 0
    for tokens in read(test_texts):
        tokens = pad(tokens)
        first = max(1, order - 1)
        n_tokens += len(tokens) - first
        for place in range(first, len(tokens)):
            context = tokens[place - order + 1 : place]
            log_likelihood += np.log(ngrams.score(tokens[place], context))
    return ngrams, np.exp(-log_likelihood / n_tokens)


def write(ngrams, order, n_texts=3, max_tokens=30):
    """Return texts sampled from an n-gram model."""
    written = []
    for seed in range(n_texts):
        start = ["<s>"] * max(1, order - 1)
        tokens = ngrams.generate(max_tokens, text_seed=start, random_seed=seed)
        written.append(" ".join(tokens[: [*tokens, "</s>"].index("</s>")]))
    return written


written = {"LSTM": model.generate(3, max_tokens=30, random_state=0)}
if importlib.util.find_spec("nltk"):
    for order in (1, 2, 3):
        start = time.perf_counter()
        name = f"{order}-gram"
        ngrams, perplexity[name] = count_ngrams(order)
        seconds[name] = time.perf_counter() - start
        written[name] = write(ngrams, order)
else:
    print("NLTK is not installed, its n-grams stay out. Run: pip install nltk")

# %%
# Perplexity and texts
# --------------------

for name, value in perplexity.items():
    print(f"{name:<8} perplexity {value:8.1f}   {seconds[name]:6.1f} s")
    for text in written[name]:
        print(f"         {text}")

# %%
# A lower temperature makes texts more probable and less varied; a prompt is continued.

for temperature in (0.3, 0.7, 1.0):
    (text,) = model.generate(
        prompt="return the", temperature=temperature, random_state=0
    )
    print(f"{temperature}: {text}")

# %%

figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
bars = axis.barh(list(perplexity), list(perplexity.values()), color="tab:gray")
bars[0].set_color("tab:orange")
axis.bar_label(bars, fmt="%.0f", padding=3)
axis.set_xlabel("perplexity of unseen texts, lower is better")
axis.set_xscale("log")
axis.margins(x=0.15)
axis.invert_yaxis()
axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# A language model of many unlabelled texts of its domain is what a classifier of few labelled ones
# can start from: ``LSTMTextClassifier(pretrained=model)``.
