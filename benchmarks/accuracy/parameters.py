"""Which parameters matter: random settings on validation rows, and what explains their log loss.

Each trial draws a setting from the search space of docs/tuning.md, fits the classifier, and scores
it on held-out training rows: the whole model, and its network without the n-grams. Trials are kept
in benchmarks/results/, and a study can resume. `--render` needs optuna: it computes a functional
ANOVA (Hutter et al. 2014) from the trials, with spreads from bootstrap samples of them.

    python benchmarks/accuracy/parameters.py mr trec imdb --trials 60
    python benchmarks/accuracy/parameters.py mr trec imdb --render
"""

import argparse
import json
import re
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from data_sets import find_data, load_data_set
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import ParameterSampler
from systems import network_alone
from tables import join

from sklstm import LSTMTextClassifier, SequenceVectorizer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tuning.md"
RESULTS = ROOT / "benchmarks" / "results"
#: Texts to train on and to score: few, since many settings say more than many texts.
N_TRAIN, N_HELD_OUT = 2000, 2000
#: Fits of the default setting, to compare with.
DEFAULT_SEEDS = 3
N_BOOTSTRAPS = 20
#: A number that no fit sees. A parameter matters if it explains more than this one.
NOTHING = "(a random number)"
SCORES = {"whole": "the whole model", "network": "the network without n-grams"}
STYLES = {"light": "default", "dark": "dark_background"}


def main():
    options = parse()
    names = find_data(options.data)
    if options.render:
        render({name: load_trials(name) for name in names})
        return
    torch.set_num_threads(options.threads)
    for name in names:
        run(name, options.trials)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="*", help="folders of the data; all if none is named")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--render", action="store_true", help="draw and print what is there")
    return parser.parse_args()


def read_space():
    """Return the search space that the page shows, as a dictionary."""
    page = PAGE.read_text(encoding="utf-8")
    block, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found = {}
    exec(block, found)  # the page is ours
    return found["space"]


# ------------------------------------------------------------------------------------------ trials


def run(name, n_trials):
    """Fit and score what has not been yet."""
    data = load_data_set(name, "validation").hold_out(N_HELD_OUT)
    data = data.draw(N_TRAIN, seed=0)
    settings = [({}, seed) for seed in range(DEFAULT_SEEDS)]
    settings += [(setting, 0) for setting in draw_settings(n_trials)]
    done = load_trials(name)
    RESULTS.mkdir(exist_ok=True)
    with path_of(name).open("a", encoding="utf-8") as file:
        for number, (setting, seed) in enumerate(settings[len(done) :], start=len(done)):
            trial = {"number": number, "setting": setting} | score(setting, seed, data)
            print(json.dumps(trial, default=str), file=file, flush=True)
            print(name, number, {kind: round(trial[kind]["log_loss"], 4) for kind in SCORES})


def draw_settings(n_trials):
    """Return random settings, the same ones for all data sets."""
    space = read_space() | {NOTHING: np.random.default_rng(1).random(n_trials).tolist()}
    settings = ParameterSampler(space, n_trials, random_state=0)
    return [{key: plain(value) for key, value in setting.items()} for setting in settings]


def plain(value):
    return value.item() if isinstance(value, np.generic) else value


def score(setting, seed, data):
    """Return log loss and accuracy of the whole model and of its network, and seconds."""
    given = {name: value for name, value in setting.items() if name != NOTHING}
    classifier = LSTMTextClassifier(vectorizer=SequenceVectorizer(), random_state=seed)
    classifier.set_params(**given)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier.fit(data.texts, data.labels)
    scores = {"seconds": round(time.perf_counter() - start, 2)}
    scores["whole"] = evaluate(classifier, data)
    return scores | {"network": evaluate(network_alone(classifier), data)}


def evaluate(classifier, data):
    probabilities = classifier.predict_proba(data.held_out_texts)
    predicted = classifier.classes_[probabilities.argmax(axis=1)]
    return {
        "log_loss": log_loss(data.held_out_labels, probabilities, labels=classifier.classes_),
        "accuracy": accuracy_score(data.held_out_labels, predicted),
    }


def path_of(name):
    return RESULTS / f"parameters-{name}.jsonl"


def load_trials(name):
    if not path_of(name).exists():
        return []
    with path_of(name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# --------------------------------------------------------------------------------------- importance


def render(trials):
    """Draw the importances and print the tables of the page."""
    space = [*read_space(), NOTHING]
    found = {
        kind: {name: measure_importances(of_data, space, kind) for name, of_data in trials.items()}
        for kind in SCORES
    }
    means = {kind: np.mean([mean for mean, _ in found[kind].values()], axis=0) for kind in SCORES}
    order = np.argsort(means["network"])
    for name, style in STYLES.items():
        settings = {"svg.fonttype": "none", "svg.hashsalt": "sklstm"}
        with plt.style.context([style, settings]):
            draw(found, space, order, ROOT / "docs" / "images" / f"parameters-{name}.svg")
    print_scores(trials)
    print_best(trials, space)


def measure_importances(trials, space, kind):
    """Return the mean and the spread of each parameter's share of the variance, (n_parameters,).

    The scores are replaced by their ranks: a few settings that learn nothing would otherwise be
    all that is explained.
    """
    trials = trials[DEFAULT_SEEDS:]
    losses = np.array([trial[kind]["log_loss"] for trial in trials])
    ranks = losses.argsort().argsort() / len(losses)
    rng = np.random.default_rng(0)
    samples = [rng.integers(len(trials), size=len(trials)) for _ in range(N_BOOTSTRAPS)]
    shares = np.array(
        [
            measure_once([trials[row]["setting"] for row in rows], ranks[rows], space, seed)
            for seed, rows in enumerate(samples)
        ]
    )
    return shares.mean(axis=0), shares.std(axis=0)


def measure_once(settings, values, space, seed):
    """Return each parameter's share by optuna's functional ANOVA."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    levels = {name: distribution([setting[name] for setting in settings]) for name in space}
    for setting, value in zip(settings, values, strict=True):
        params = {name: encode(setting[name]) for name in space}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=levels, value=float(value))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    # Parameters that had one value in this sample are left out.
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return [shares.get(name, 0.0) for name in space]


def distribution(values):
    import optuna

    if all(isinstance(value, float) for value in values):
        return optuna.distributions.FloatDistribution(min(values), max(values))
    return optuna.distributions.CategoricalDistribution(sorted({encode(v) for v in values}))


def encode(value):
    """Return what optuna keeps: a number as it is, all else as its text."""
    return value if isinstance(value, float) else str(value)


def draw(found, space, order, path):
    figure, axes = plt.subplots(1, 2, figsize=(9, 5), sharey=True, layout="constrained")
    for axis, (kind, title) in zip(axes, SCORES.items(), strict=True):
        n_data = len(found[kind])
        for k, (name, (mean, spread)) in enumerate(found[kind].items()):
            places = np.arange(len(space)) + (n_data / 2 - k - 0.5) * 0.8 / n_data
            axis.barh(places, mean[order], 0.8 / n_data, xerr=spread[order], label=name)
        axis.set(title=title, xlabel="share of the variance of the log loss's rank")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(space)), [space[k] for k in order])
    axes[1].legend(frameon=False, loc="lower right")
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


def print_scores(trials):
    """Print the default's log loss and accuracy, and what the trials reach."""
    columns = ["data", "model", "defaults", "best trial", "rank of the defaults"]
    columns.append("middle half of the trials")
    print(join(columns), join(["---"] * len(columns)), sep="\n")
    for name, of_data in trials.items():
        for kind, title in SCORES.items():
            losses = np.array([trial[kind]["log_loss"] for trial in of_data])
            defaults, drawn = losses[:DEFAULT_SEEDS], np.sort(losses[DEFAULT_SEEDS:])
            quarter, three = np.quantile(drawn, [0.25, 0.75])
            rank = 1 + (drawn < defaults.mean()).sum()
            print(
                join(
                    [
                        name,
                        title,
                        f"{defaults.mean():.3f} ± {np.ptp(defaults) / 2:.3f}",
                        f"{drawn[0]:.3f}",
                        f"{rank} of {len(drawn) + 1}",
                        f"{quarter:.3f} to {three:.3f}",
                    ]
                )
            )


def print_best(trials, space):
    """Print the settings of the best tenth of each data set, of the network without n-grams."""
    for name, of_data in trials.items():
        drawn = sorted(of_data[DEFAULT_SEEDS:], key=lambda trial: trial["network"]["log_loss"])
        print(f"\n{name}")
        for trial in drawn[: len(drawn) // 10]:
            print(round(trial["network"]["log_loss"], 3), trial["setting"])


if __name__ == "__main__":
    main()
