"""Pre-train a language model on files of texts, save it, and tell how fast and how well it learnt.

    python benchmarks/pretrain.py --texts imdb/train.csv.xz imdb/unlabeled.csv.xz \
        --save imdb.safetensors --json pretrain.json --verbose 2

A line an epoch; with --minutes, as many passes (or as large a share of one) as fit into them, by
the speed of the first batches. Perplexities are those of texts set aside.
"""

import argparse
import json
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from corpus import read_texts
from skorch.callbacks import Callback

from sklstm import LSTMLanguageModel, SequenceVectorizer

#: Batches that tell the speed.
PROBE, WARM_UP = 40, 3
MIN_TEXTS = 100


def main():
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    texts = [text for path in options.texts for text in read_texts(path, options.text_column)]
    print(f"{len(texts):,} texts, torch {torch.__version__}, {torch.get_num_threads()} threads")
    if options.minutes:
        texts, options.epochs = fit_into(options, texts)
        print(f"{options.minutes:g} minutes: {options.epochs} epochs of {len(texts):,} texts")
    clock = Clock()
    model = make_model(options, max_epochs=options.epochs, callbacks=[("clock", clock)])
    start = time.perf_counter()
    model.fit(texts)
    seconds = time.perf_counter() - start
    if options.save:
        model.save(options.save)
    results = {
        "settings": {name: str(value) for name, value in vars(options).items()},
        "threads": torch.get_num_threads(),
        "texts": len(texts),
        "seconds": seconds,
        "history": [
            {name: value for name, value in row.items() if name != "event_lr"}
            for row in model.history_
        ],
        "perplexity": model.validation_perplexities_,
    }
    tokens = model.n_iter_ * sum(len(text.split()) for text in texts)
    print(f"{seconds:.0f} s in all, {tokens / seconds:,.0f} words/s (between white space)")
    print(f"perplexity of the texts set aside, by epoch: {model.validation_perplexities_}")
    for text in model.generate(3, temperature=0.7, max_tokens=60, random_state=0):
        print(f"  {text}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1, default=float), encoding="utf-8")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", nargs="+", required=True, help="CSV files with a column text")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="instead of --epochs")
    parser.add_argument("--save", help="the file of the model")
    parser.add_argument("--json", type=Path, help="keep the results in this file")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--embedding-dim", type=int, default=128)
    parser.add_argument("--negatives", type=int, default=2048)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--lr", type=float, default=LSTMLanguageModel().lr)
    parser.add_argument("--max-features", type=int, default=30_000)
    parser.add_argument("--max-length", type=int, default=256, help="for the classifier")
    parser.add_argument("--validation-fraction", type=float, default=0.01)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--random-state", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--verbose", type=int, default=1)
    return parser.parse_args()


def make_model(options, **settings):
    """Return a language model of the options."""
    return LSTMLanguageModel(
        **{
            "vectorizer": SequenceVectorizer(
                max_features=options.max_features, max_length=options.max_length
            ),
            "hidden_size": options.hidden_size,
            "embedding_dim": options.embedding_dim,
            "n_negatives": options.negatives,
            "window": options.window,
            "batch_size": options.batch_size,
            "dropout": options.dropout,
            "lr": options.lr,
            "validation_fraction": options.validation_fraction,
            "precision": options.precision,
            "backend": options.backend,
            "random_state": options.random_state,
            "verbose": options.verbose,
        }
        | settings
    )


def fit_into(options, texts):
    """Return the texts to train on and the epochs that fit into the minutes."""
    clock = Clock(stop_after=PROBE)
    probe = make_model(options, max_epochs=1, verbose=0, validation_fraction=0.0)
    probe.set_params(callbacks=[("clock", clock)])
    words = np.array([len(text.split()) for text in texts])
    some = np.random.default_rng(0).permutation(len(texts))[:5000]
    begin = time.perf_counter()
    with suppress(StopProbe):
        probe.fit([texts[k] for k in some])
    reading = time.perf_counter() - begin - clock.seconds
    rate = clock.n_tokens / clock.seconds
    # A token is about 0.8 words; the reading of all texts counts too.
    tokens = words.sum() * 1.18
    left = 60 * options.minutes - reading * len(texts) / len(some)
    passes = left * rate / tokens
    print(f"{rate:,.0f} tokens/s, about {passes:.2f} passes")
    if passes >= 1:
        return texts, round(passes)
    n_texts = max(MIN_TEXTS, int(passes * len(texts)))
    chosen = np.random.default_rng(1).permutation(len(texts))[:n_texts]
    return [texts[k] for k in chosen], 1


class StopProbe(Exception):
    """The first batches have told the speed."""


class Clock(Callback):
    """Prints the speed now and then; ends the fit after so many batches if asked to."""

    def __init__(self, stop_after=None, every=200):
        self.stop_after = stop_after
        self.every = every

    def __deepcopy__(self, memo):
        """Return itself: a fit copies its callbacks, and this one is read afterwards."""
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Start counting."""
        self.n_batches, self.loss = 0, 0.0
        self._start()

    def _start(self):
        self.n_tokens, self.seconds, self.start = 0, 0.0, time.perf_counter()

    def on_batch_end(self, net, batch=None, training=True, loss=None, **kwargs):
        """Count a batch; the first ones, which wake everything up, are not timed."""
        self.n_batches += 1
        self.n_tokens += batch.ids[1:].numel()
        self.seconds = time.perf_counter() - self.start
        if self.stop_after and self.n_batches >= self.stop_after:
            raise StopProbe
        if self.n_batches == WARM_UP:
            self._start()
        self.loss += (float(loss.detach()) - self.loss) / min(self.n_batches, self.every)
        if not self.stop_after and self.n_batches % self.every == 0:
            print(
                f"{self.n_batches:>7} batches {self.n_tokens / self.seconds:>8,.0f} tokens/s "
                f"loss {self.loss:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
