"""A textbook network of Keras' examples: recurrent dropout, and which words are read.

    python benchmarks/accuracy/textbook.py yelp_10k                # held-out rows of the file
    python benchmarks/accuracy/textbook.py yelp_10k --keras        # Keras too, which takes minutes

It prints the accuracy after each epoch. The network is number 5 of docs/keras.md: an embedding of
128 for 2,497 words, dropout of columns, an LSTM of 200 units with dropout in the recurrence, the
last state, Adam. The labels must be numbers: the class is whether there are more than three stars.
Keras' ``Tokenizer`` leaves out all punctuation and words that it does not know; our vectorizer
reads an unknown word as a token of its own. "Known words" are the same tokens as Keras', "all
words" those and the unknown ones. At most the last 400 are read.
"""

import os
import re
from collections import Counter

import numpy as np
from data_sets import SPLITS, load_data_set
from tables_of_tasks import make_parser

N_WORDS, MAX_LENGTH, UNKNOWN = 2_497, 400, "<unknown>"
DROPOUTS = (0.0, 0.2)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--keras", action="store_true", help="also Keras on TensorFlow")
    options = parser.parse_args()
    data = load_data_set(options.data, options.split)
    if options.texts:
        data = data.draw(options.texts, seed=0)
    words = [cut(texts) for texts in (data.texts, data.held_out_texts)]
    counts = Counter(word for text in words[0] for word in text)
    known = {word for word, _ in counts.most_common(N_WORDS)}
    classes = [labels.astype(int) > 3 for labels in (data.labels, data.held_out_labels)]
    print(f"{data.name}, {options.split}: {len(words[0]):,} texts to train on")
    fits = {"known words": fit_ours, "all words": fit_ours}
    fits |= {"Keras, known words": fit_keras} if options.keras else {}
    for name, fit in fits.items():
        texts = [[shorten(text, known, name) for text in own] for own in words]
        for dropout in DROPOUTS:
            curves = [fit(texts, classes, dropout, seed, options) for seed in options.seeds]
            each = ", ".join(" ".join(f"{100 * a:.1f}" for a in curve) for curve in curves)
            means = " ".join(f"{100 * a:.1f}" for a in np.mean(curves, axis=0))
            print(f"{name}, recurrent dropout {dropout}: {means} ({each})", flush=True)


def cut(texts):
    return [re.findall(r"[a-z0-9']+", text.lower()) for text in texts]


def shorten(text, known, name):
    """Return the last words of a text; there is at least one, as each text has a state."""
    if name == "all words":
        text = [word if word in known else UNKNOWN for word in text]
    else:
        text = [word for word in text if word in known]
    return text[-MAX_LENGTH:] or [UNKNOWN]


def fit_ours(texts, classes, dropout, seed, options):
    """Return the accuracy on the held-out texts after each epoch."""
    import torch

    from sklstm import LSTMTextClassifier, SequenceVectorizer

    torch.set_num_threads(options.threads)
    train, held_out = ([" ".join(text) for text in own] for own in texts)
    vectorizer = SequenceVectorizer(tokenizer=str.split, min_df=1, max_length=None)
    classifier = LSTMTextClassifier(
        vectorizer=vectorizer,
        blend=None,
        bidirectional=False,
        pooling="last",
        embedding_dim=128,
        hidden_size=200,
        input_dropout=0.36,
        recurrent_dropout=dropout,
        dropout=0.0,
        embedding_dropout=0.0,
        word_dropout=0.0,
        weight_decay=0.0,
        label_smoothing=0.0,
        ema=None,
        lr=1e-3,
        lr_schedule=None,
        early_stopping=False,
        calibrate=False,
        precision="float32",
        batch_size=32,
        max_epochs=1,
        warm_start=True,
        random_state=seed,
    )
    curve = []
    for _ in range(options.epochs):
        classifier.fit(train, classes[0])
        curve.append(classifier.score(held_out, classes[1]))
    return curve


def fit_keras(texts, classes, dropout, seed, options):
    """Return the accuracy on the held-out texts after each epoch."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    from keras import layers

    numbers = {word: k + 1 for k, word in enumerate(sorted(set().union(*texts[0])))}
    train, held_out = (
        keras.utils.pad_sequences(
            [[numbers[word] for word in text if word in numbers] for text in own],
            maxlen=MAX_LENGTH,
        )
        for own in texts
    )
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            layers.Embedding(len(numbers) + 1, 128, mask_zero=True),
            layers.SpatialDropout1D(0.2),
            layers.LSTM(200, dropout=0.2, recurrent_dropout=dropout),
            layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    curve = []
    for _ in range(options.epochs):
        model.fit(train, classes[0].astype(int), batch_size=32, epochs=1, verbose=0)
        predicted = model.predict(held_out, verbose=0).argmax(axis=1)
        curve.append(float((predicted == classes[1]).mean()))
    return curve


if __name__ == "__main__":
    main()
