"""Textbook networks beside Keras: the accuracy after each epoch, on the same tokens.

    python benchmarks/accuracy/textbook.py yelp_10k --above 3 --keras
    python benchmarks/accuracy/textbook.py imdb --texts 5000 --networks 2 5 --keras
    python benchmarks/accuracy/textbook.py yelp_10k --above 3 --networks 5 --words known all

The networks are numbers 1, 2, 3 and 5 of docs/keras.md, and "5, no recurrent dropout". With
``--above`` the labels must be numbers, and the class is whether they are above this one.
Keras' ``Tokenizer`` leaves out all punctuation and the words that it does not know; our vectorizer
reads an unknown word as a token of its own. "known" words are the same tokens for both, "all" are
those and the unknown ones. Only the last tokens of a text are read. Results are kept and not
repeated. With ``--keras`` a folder with Keras and one of its backends must be on the path;
``KERAS_BACKEND=jax`` is two to three times as fast as TensorFlow here, with the same layers.
"""

import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from data_sets import SPLITS, load_data_set
from tables_of_tasks import join, make_parser

UNKNOWN = "<unknown>"
EMBEDDING_DIM, BATCH_SIZE = 128, 32


@dataclass(frozen=True)
class Network:
    """One network in both libraries.

    ``ours`` are parameters of the classifier, and ``layers`` is a function from Keras' module and
    the number of ids to a model without its optimizer.
    """

    n_words: int
    layers: Callable
    ours: dict = field(default_factory=dict)
    padding: str = "pre"
    most_tokens: int | None = None  # fewer than --max-length


def build_1(keras, n_ids):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Embedding(n_ids, EMBEDDING_DIM, mask_zero=True),
            layers.LSTM(128, dropout=0.2, recurrent_dropout=0.2),
            layers.Dense(2, activation="softmax"),
        ]
    )


def build_2(keras, n_ids):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Embedding(n_ids, 64, mask_zero=True),
            layers.LSTM(128, return_sequences=True),
            layers.LSTM(128),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def build_3(keras, n_ids):
    layers = keras.layers
    inputs = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(n_ids, EMBEDDING_DIM, mask_zero=True)(inputs)
    states = layers.Bidirectional(layers.LSTM(128, return_sequences=True))(embedded)
    attended = layers.Attention()([states, states])
    pools = [layers.GlobalAveragePooling1D()(attended), layers.GlobalMaxPooling1D()(attended)]
    pooled = layers.Dropout(0.5)(layers.Concatenate()(pools))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(pooled))


def build_5(keras, n_ids, recurrent_dropout=0.2):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Embedding(n_ids, EMBEDDING_DIM, mask_zero=True),
            layers.SpatialDropout1D(0.2),
            layers.LSTM(200, dropout=0.2, recurrent_dropout=recurrent_dropout),
            layers.Dense(2, activation="softmax"),
        ]
    )


#: Network 5; its two dropouts of columns are one, 1 - 0.8 * 0.8.
COLUMNS = {"hidden_size": 200, "input_dropout": 0.36}

NETWORKS = {
    "1": Network(19_997, build_1, {"input_dropout": 0.2, "recurrent_dropout": 0.2}),
    "2": Network(19_997, build_2, {"embedding_dim": 64, "num_layers": 2}, most_tokens=100),
    "3": Network(
        19_997,
        build_3,
        {"bidirectional": True, "attention": "dot", "pooling": ("mean", "max"), "dropout": 0.5},
        padding="post",
    ),
    "5": Network(2_497, build_5, COLUMNS | {"recurrent_dropout": 0.2}),
    "5, no recurrent dropout": Network(2_497, lambda *args: build_5(*args, 0.0), COLUMNS),
}


def main():
    options = parse()
    data = load_data_set(options.data, options.split).hold_out(options.held_out)
    if options.texts:
        data = data.draw(options.texts, seed=0)
    words = [cut(texts) for texts in (data.texts, data.held_out_texts)]
    counts = Counter(word for text in words[0] for word in text)
    classes = [number(labels, options.above) for labels in (data.labels, data.held_out_labels)]
    title = f"{data.name}, {options.split}, {len(words[0]):,} texts, {options.max_length} tokens"
    print(f"{title}; {len(words[1]):,} held out, {100 * np.mean(classes[1]):.1f} % of class 1\n")
    titles = ["network", "words", "library", "seeds"]
    titles += [f"epoch {k + 1}" for k in range(options.epochs)] + ["s an epoch"]
    print(join(titles), join(["---"] * len(titles)), sep="\n")
    kept = json.loads(options.json.read_text("utf-8")) if options.json.exists() else {}
    for name in options.networks:
        network = NETWORKS[name]
        known = {word for word, _ in counts.most_common(network.n_words)}
        for reading in options.words:
            texts = [[shorten(text, known, reading, network, options) for text in t] for t in words]
            libraries = {"ours": fit_ours}
            if options.keras and reading == "known":
                libraries["Keras"] = fit_keras
            for library, fit in libraries.items():
                curves, seconds = [], []
                for seed in options.seeds:
                    key = f"{title}; {name}; {reading}; {library}; {options.epochs}; {seed}"
                    if key not in kept:
                        start = time.perf_counter()
                        curve = fit(network, texts, classes, seed, options)
                        kept[key] = [curve, (time.perf_counter() - start) / options.epochs]
                        options.json.write_text(json.dumps(kept, indent=1), "utf-8")
                    curves.append(kept[key][0])
                    seconds.append(kept[key][1])
                cells = [name, reading, library, str(len(options.seeds))]
                cells += [describe(100 * np.array(epoch)) for epoch in zip(*curves, strict=True)]
                print(join([*cells, f"{np.median(seconds):.0f}"]), flush=True)


def parse():
    parser = make_parser(__doc__)
    parser.add_argument("data")
    parser.add_argument("--above", type=float, help="class 1 is a label above this number")
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--words", nargs="+", choices=["known", "all"], default=["known"])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=400, help="the last so many tokens")
    parser.add_argument("--held-out", type=int, default=2000, help="most texts held out")
    parser.add_argument("--keras", action="store_true", help="also Keras")
    return parser.parse_args()


def number(labels, above):
    """Return the class of each label, 0 or 1."""
    if above is not None:
        return (labels.astype(float) > above).astype(int)
    values, classes = np.unique(labels, return_inverse=True)
    if len(values) != 2:
        sys.exit(f"The labels must be of two classes; got {len(values)}. Give --above.")
    return classes


def cut(texts):
    return [re.findall(r"[a-z0-9']+", text.lower()) for text in texts]


def shorten(text, known, reading, network, options):
    """Return the last words of a text; there is at least one, as each text has a state."""
    if reading == "all":
        text = [word if word in known else UNKNOWN for word in text]
    else:
        text = [word for word in text if word in known]
    return text[-(network.most_tokens or options.max_length) :] or [UNKNOWN]


def describe(values):
    """Return the mean and, of several, the standard deviation."""
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"


def fit_ours(network, texts, classes, seed, options):
    """Return the accuracy on the held-out texts after each epoch."""
    import torch

    from sklstm import LSTMTextClassifier, SequenceVectorizer

    torch.set_num_threads(options.threads)
    train, held_out = ([" ".join(text) for text in own] for own in texts)
    textbook = {
        "blend": None,
        "bidirectional": False,
        "pooling": "last",
        "embedding_dim": EMBEDDING_DIM,
        "dropout": 0.0,
        "embedding_dropout": 0.0,
        "word_dropout": 0.0,
        "weight_decay": 0.0,
        "label_smoothing": 0.0,
        "ema": None,
        "lr": 1e-3,
        "lr_schedule": None,
        "early_stopping": False,
        "calibrate": False,
        "precision": "float32",
        "batch_size": BATCH_SIZE,
    }
    classifier = LSTMTextClassifier(
        vectorizer=SequenceVectorizer(tokenizer=str.split, min_df=1, max_length=None),
        max_epochs=options.epochs,
        random_state=seed,
        **textbook | network.ours,
    )
    classifier.fit(train, classes[0], X_val=held_out, y_val=classes[1])
    return [epoch["valid_accuracy"] for epoch in classifier.history_]


def fit_keras(network, texts, classes, seed, options):
    """Return the accuracy on the held-out texts after each epoch."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        if tensorflow.config.threading.get_intra_op_parallelism_threads() != options.threads:
            tensorflow.config.threading.set_intra_op_parallelism_threads(options.threads)
    numbers = {word: k + 1 for k, word in enumerate(sorted(set().union(*texts[0])))}
    train, held_out = (
        keras.utils.pad_sequences(
            [[numbers[word] for word in text if word in numbers] for text in own],
            padding=network.padding,
        )
        for own in texts
    )
    keras.utils.set_random_seed(seed)
    model = network.layers(keras, len(numbers) + 1)
    is_sigmoid = model.layers[-1].units == 1
    loss = "binary_crossentropy" if is_sigmoid else "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    fitted = model.fit(
        train,
        classes[0],
        validation_data=(held_out, classes[1]),
        batch_size=BATCH_SIZE,
        epochs=options.epochs,
        verbose=0,
    )
    return fitted.history["val_accuracy"]


if __name__ == "__main__":
    main()
