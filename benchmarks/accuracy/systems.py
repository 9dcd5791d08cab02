"""The systems of the accuracy benchmark, written as short specs.

A spec is the name of a system and, after a colon, parameters to set: ``lstm``,
``lstm:hidden_size=256,pooling=('max','mean')``, ``lstm:vectorizer__min_df=1``,
``tfidf:logisticregression__C=3``; ``lm:vectorizer__max_length=400``, where ``lm`` is the
classifier that starts from the language model of pretrain.py. Values are Python literals; a bare
word is the baseline of that name, unfitted (``blend=nbsvm``), or else a str (``cell=peephole``).
"""

import ast
import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from baselines import BASELINES, make_baseline
from sklearn.base import BaseEstimator

from sklstm import LSTMTextClassifier, SequenceVectorizer
from sklstm.model.blending import Blend


@dataclass(frozen=True)
class Variant:
    """A row of the final table below the baselines.

    It is made from a spec. A system that is not ``random`` runs with one seed. With a ``part``, the
    part that it returns of the fitted estimator is measured; several parts share one fit, whose
    seconds are not theirs. ``together`` is the title of a row for the mean probabilities of its
    seeds.
    """

    title: str
    spec: str
    random: bool = True
    part: Callable | None = None
    together: str | None = None


def network_alone(classifier):
    """Return a fitted classifier that predicts by its network, without its n-grams."""
    network, model = copy.copy(classifier), classifier.model_
    network.model_ = replace(model, blend=Blend(model.blend.temperature))
    return network


def ngrams_alone(classifier):
    """Return the fitted n-grams of a classifier, which predict by themselves."""
    return classifier.member_


#: What a spec of ``lm`` starts from: the language model that pretrain.py has saved.
LANGUAGE_MODEL = Path(__file__).parent.parent / "results" / "language_model.safetensors"

#: The classifier's names in specs, and what it starts from.
CLASSIFIERS = {"lstm": None, "lm": LANGUAGE_MODEL}

#: The parameters of a classifier that reads all of a long text.
SENTENCES = "vectorizer__max_length=None,read_by=sentence"

#: Short names of the rows of the final table, in their order. A new one is one line here.
VARIANTS = {
    "lstm": Variant("LSTMTextClassifier, defaults", "lstm:", together="– all its seeds together"),
    "network": Variant(
        "– LSTM only", "lstm:", part=network_alone, together="– LSTMs of all seeds together"
    ),
    "ngrams": Variant("– n-grams only", "lstm:", part=ngrams_alone, random=False),
    "adversarial": Variant("with adversarial training", "lstm:adversarial=0.25"),
    "adversarial-network": Variant("– LSTM only", "lstm:adversarial=0.25", part=network_alone),
    "sentences": Variant("reading sentence by sentence", f"lstm:{SENTENCES}"),
    "sentences-network": Variant("– LSTM only", f"lstm:{SENTENCES}", part=network_alone),
    "lm": Variant("pre-trained on unlabelled texts", "lm:"),
    "lm-network": Variant("– LSTM only", "lm:", part=network_alone),
    "lm400": Variant("the same, reading 400 tokens", "lm:vectorizer__max_length=400"),
    "lm400-network": Variant("– LSTM only", "lm:vectorizer__max_length=400", part=network_alone),
    "lm-sentences": Variant("the same, sentence by sentence", f"lm:{SENTENCES}"),
    "lm-sentences-network": Variant("– LSTM only", f"lm:{SENTENCES}", part=network_alone),
}
#: The rows that need no language model.
STANDARD = ["lstm", "network", "ngrams"]


class System:
    """A system that is made from a spec, with its title and place in tables."""

    def __init__(self, spec):
        self.spec = spec
        variant = VARIANTS.get(spec) or Variant(BASELINES.get(spec, f"`{spec}`"), spec)
        self.title = variant.title
        self.part = variant.part
        self._name, self._settings = parse_spec(variant.spec)
        self.random = variant.random and self._name not in BASELINES

    def make(self, data, seed):
        """Return the unfitted estimator."""
        settings = {
            name: make_baseline(value.name, data.texts) if isinstance(value, Baseline) else value
            for name, value in self._settings.items()
        }
        if self._name in CLASSIFIERS:
            model = LSTMTextClassifier(pretrained=CLASSIFIERS[self._name], random_state=seed)
            return model.set_params(**settings)
        return make_baseline(self._name, data.texts).set_params(**settings)

    @property
    def order(self):
        """The place of its row in a table: baselines, variants, anything else."""
        names = [*BASELINES, *VARIANTS]
        return names.index(self.spec) if self.spec in names else len(names)


@dataclass(frozen=True)
class Baseline:
    """A bare word of a spec that names a baseline."""

    name: str


def parse_spec(spec):
    """Return the name and the settings, by name of the parameter, of a spec."""
    name, _, settings = spec.partition(":")
    names = [*BASELINES, *CLASSIFIERS]
    if name not in names:
        known = [*BASELINES, *VARIANTS]
        raise SystemExit(f"A system must be one of {known} or a spec of {names}; got {spec!r}.")
    try:
        call = ast.parse(f"f({settings})", mode="eval").body
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError("not parameter=value")
        return name, {keyword.arg: read_value(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError) as error:
        raise SystemExit(
            f"A system must be written name:parameter=value,parameter=value with Python literals "
            f"or bare words as values; got {spec!r} ({error})."
        ) from None


def read_value(node):
    if isinstance(node, ast.Name):
        return Baseline(node.id) if node.id in BASELINES else node.id
    return ast.literal_eval(node)


#: Parameters that do not change what is fitted, only how it runs or which repeat it is.
IRRELEVANT = {"random_state", "verbose", "n_jobs"}


def describe(value):
    """Return an estimator's class and parameters as data, the same in every process.

    Parameters that are None are left out, so that a new one that is off by default does not change
    the description of earlier runs.
    """
    if isinstance(value, BaseEstimator) and not isinstance(value, type):
        parameters = value.get_params(deep=False)
        if isinstance(value, LSTMTextClassifier) and parameters["vectorizer"] is None:
            parameters["vectorizer"] = SequenceVectorizer()
        return {"class": type(value).__qualname__} | {
            name: describe(parameter)
            for name, parameter in sorted(parameters.items())
            if parameter is not None and name not in IRRELEVANT
        }
    if isinstance(value, dict):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, Path):  # the content of the file, wherever that is
        return hashlib.sha256(value.read_bytes()).hexdigest()
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return repr(value)


def hash_description(description):
    """Return a short name of a description."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
