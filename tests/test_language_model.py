import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

import sklstm.language_model
from sklstm import LSTMLanguageModel, SequenceVectorizer
from sklstm.text.splitting import split_rows
from sklstm.training.start import Fresh
from tests.conftest import TEXTS

TINY = {
    "embedding_dim": 8,
    "hidden_size": 8,
    "window": 16,
    "batch_size": 4,
    "max_epochs": 3,
    "lr": 0.02,
    "random_state": 0,
}


def tiny(**settings):
    return LSTMLanguageModel(**TINY | settings)


@pytest.fixture(scope="module")
def model():
    return tiny(validation_fraction=0.2).fit(TEXTS * 4)


def uniform_texts(n_texts, n_words=20, length=30, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{k}" for k in rng.integers(n_words, size=length)) for _ in range(n_texts)]


def test_perplexity_of_random_words_is_their_number():
    learnt = tiny(max_epochs=8, dropout=0.1, window=32, batch_size=8).fit(uniform_texts(150))
    fresh = uniform_texts(40, seed=1)
    # One token in 31 is the end of the text, which the length does not tell a small network.
    for direction in ("forward", "backward"):
        assert 19 < learnt.perplexity(fresh, direction=direction) < 23


def test_a_limit_of_minutes_ends_the_last_epoch_early(capsys):
    texts = ["a b c d e f g h", "h g f e d c b a"] * 60
    settings = {"validation_fraction": 0.5, "max_epochs": "auto"}
    short = tiny(**settings, max_minutes=1e-6, verbose=1).fit(texts)
    assert short.n_iter_ == 1 and len(short.validation_perplexities_) == 1
    shown = capsys.readouterr().out
    assert (
        "at most 10 epochs of 9 batches or 1e-06 minutes." in shown
        and "Stopped early after epoch 1." in shown
    )
    # One update of one batch learns next to nothing.
    assert short.perplexity(texts) > 7 and tiny(max_epochs=15).fit(texts).perplexity(texts) < 3


def test_a_limit_that_is_not_reached_changes_nothing(model):
    limited = tiny(validation_fraction=0.2, max_minutes=60).fit(TEXTS * 4)
    assert limited.n_iter_ == 3
    assert limited.perplexity(TEXTS) == pytest.approx(model.perplexity(TEXTS), rel=1e-3)


def test_perplexity_of_a_cycle_is_1():
    texts = ["a b c d e f g h"] * 60
    learnt = tiny(max_epochs=15).fit(texts)
    for direction in ("forward", "backward"):
        assert 1.0 <= learnt.perplexity(texts[:1], direction=direction) < 1.1
    assert learnt.generate(temperature=0.01, random_state=0) == texts[:1]


def test_score_is_minus_the_log_of_the_perplexity(model):
    assert np.exp(-model.score(TEXTS)) == pytest.approx(model.perplexity(TEXTS))
    assert model.perplexity(TEXTS) != model.perplexity(TEXTS, direction="backward")


def test_perplexity_weighs_all_tokens_equally_in_chunks_of_any_size(model, monkeypatch):
    whole = model.perplexity(TEXTS)
    monkeypatch.setattr(sklstm.language_model, "TEXTS_PER_CHUNK", 3)
    assert model.perplexity(TEXTS) == pytest.approx(whole)


def test_long_texts_are_read_whole():
    long = [" ".join(["a b c"] * 40)] * 4
    short = tiny(vectorizer=SequenceVectorizer(max_length=3), max_epochs=1).fit(long)
    whole = tiny(max_epochs=1).fit(long)
    assert short.vectorizer_.max_length == 3  # for a classifier
    assert short.perplexity(long) == whole.perplexity(long)
    assert short.perplexity(["a b c a b c"]) != short.perplexity(["a b c"])


def test_history_records_the_validation_texts(model):
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_perplexities_) == 3
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert model.history_[1]["valid_perplexity"] == model.validation_perplexities_[1]
    assert model.history_[0]["valid_perplexity_backward"] > 1


class Spoil(Callback):
    """Makes the third epoch the worst."""

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        if len(net.history) == 3:
            net.optimizer_.param_groups[0]["lr"] = 50.0


def test_weights_of_the_best_epoch_are_kept():
    settings = {"lr_schedule": None, "validation_fraction": 0.3, "callbacks": [Spoil()]}
    learnt = tiny(**settings).fit(TEXTS)
    losses = [row["valid_loss"] for row in learnt.history_]
    assert min(losses) < losses[-1]  # it got worse, and
    rng, _ = Fresh(learnt).generators()
    _, rows = split_rows(TEXTS, fraction=0.3, rng=rng)
    held_out = [TEXTS[row] for row in rows]
    both = [learnt.perplexity(held_out, direction=d) for d in ("forward", "backward")]
    assert np.log(both).mean() == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize("fraction", [0.0, 0.01])
def test_there_are_no_validation_texts_where_the_share_rounds_to_none(fraction):
    learnt = tiny(validation_fraction=fraction).fit(TEXTS)
    assert learnt.validation_perplexities_ == []


def test_there_are_no_validation_texts_where_all_texts_are_equal():
    assert tiny(validation_fraction=0.3).fit(TEXTS[:1] * 9).validation_perplexities_ == []


def test_one_direction_and_deeper():
    learnt = tiny(bidirectional=False, num_layers=2, dropout=0.1).fit(TEXTS)
    assert learnt.perplexity(TEXTS) > 1
    with pytest.raises(ValueError, match="direction='backward' needs a model of both directions"):
        learnt.perplexity(TEXTS, direction="backward")


def test_auto_epochs_make_enough_updates(monkeypatch):
    monkeypatch.setattr("sklstm.training.schedule.AUTO_UPDATES", 20)
    learnt = tiny(max_epochs="auto", batch_size=1).fit(TEXTS)  # four batches an epoch
    assert learnt.n_iter_ == 5
    assert tiny(max_epochs="auto", batch_size=9).fit(TEXTS).n_iter_ == 10  # one batch


def test_fits_are_repeatable_and_do_not_change_global_random_states(model):
    before, theirs = torch.get_rng_state(), np.random.mtrand._rand.get_state()[1].copy()
    again = tiny(validation_fraction=0.2).fit(TEXTS * 4)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.mtrand._rand.get_state()[1] == theirs).all()
    assert again.perplexity(TEXTS) == model.perplexity(TEXTS)


def test_generate_is_repeatable_and_stops(model):
    texts = model.generate(20, random_state=0)
    assert texts == model.generate(20, random_state=0) != model.generate(20, random_state=1)
    assert len(texts) == 20 and all(texts)
    short = model.generate(20, max_tokens=2, random_state=0)
    assert max(len(model.vectorizer_.build_analyzer()(text)) for text in short) <= 2


def test_generate_continues_a_prompt(model):
    for text in model.generate(5, prompt="What a", random_state=0, max_tokens=3):
        assert text.startswith("What a ")


def test_characters_are_joined_without_spaces():
    learnt = tiny(vectorizer=SequenceVectorizer(analyzer="char"), max_epochs=30).fit(["abcd"] * 40)
    assert learnt.generate(temperature=0) == ["abcd"]
    assert learnt.generate(temperature=0, prompt="ab") == ["abcd"]
    assert learnt.generate(temperature=0, prompt="abcd", max_tokens=1) == ["abcd"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompt": 3}, r"prompt must be a str; got int \(3\)."),
        ({"n_texts": 0}, "n_texts must be a whole number of 1 or more; got 0."),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number of 1 or more; got 1.5."),
        ({"temperature": -1}, "temperature must be a number of 0 or more; got -1."),
        ({"temperature": np.inf}, "temperature must be a number of 0 or more; got inf."),
        ({"temperature": "hot"}, "temperature must be a number of 0 or more; got 'hot'."),
    ],
    ids=str,
)
def test_generate_refuses(model, arguments, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        model.generate(**arguments)


def test_a_saved_model_is_the_same_model(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    loaded = LSTMLanguageModel.load(tmp_path / "m.safetensors")
    assert loaded.score(TEXTS) == model.score(TEXTS)
    assert loaded.generate(3, random_state=0) == model.generate(3, random_state=0)
    assert loaded.get_params() == model.get_params()
    assert loaded.history_ == model.history_
    assert loaded.validation_perplexities_ == model.validation_perplexities_
    assert loaded.vectorizer_.vocabulary_ == model.vectorizer_.vocabulary_
    clone(loaded).fit(TEXTS)


def test_save_keeps_what_is_data(tmp_path):
    vectorizer = SequenceVectorizer(vocabulary={"good": 0, "bad": 1}, max_length=7)
    settings = {"callbacks": [Callback()], "random_state": np.random.RandomState(0)}
    learnt = tiny(vectorizer=vectorizer, max_epochs=1, **settings).fit(TEXTS)
    learnt.save(tmp_path / "m")
    loaded = LSTMLanguageModel.load(tmp_path / "m")
    assert loaded.callbacks is None and loaded.random_state is None
    assert loaded.vectorizer.get_params() == vectorizer.get_params()
    assert loaded.score(TEXTS) == learnt.score(TEXTS)


def test_parameters_set_after_the_fit_are_saved_and_change_nothing_learnt(model, tmp_path):
    again = pickle.loads(pickle.dumps(model)).set_params(hidden_size=64, dropout=0.4)
    again.save(tmp_path / "m")
    loaded = LSTMLanguageModel.load(tmp_path / "m")
    assert loaded.get_params() == again.get_params()
    assert loaded.network_.settings == model.network_.settings
    assert loaded.score(TEXTS) == model.score(TEXTS)


def cut_at_spaces(text):
    return text.split()


class OwnVectorizer(SequenceVectorizer):
    pass


@pytest.mark.parametrize(
    ("vectorizer", "what"),
    [
        (SequenceVectorizer(tokenizer=cut_at_spaces), "its tokenizer is a function"),
        (OwnVectorizer(), "a OwnVectorizer is no data of ours"),
    ],
    ids=["function", "class"],
)
def test_save_refuses_code_and_leaves_the_old_file(model, tmp_path, vectorizer, what):
    model.save(tmp_path / "m")
    learnt = tiny(vectorizer=vectorizer, max_epochs=1).fit(TEXTS)
    with pytest.raises(ValueError, match=f"save cannot write parameters.vectorizer: {what}"):
        learnt.save(tmp_path / "m")
    assert LSTMLanguageModel.load(tmp_path / "m").score(TEXTS) == model.score(TEXTS)


def test_load_refuses_weights_that_do_not_fit(model, tmp_path):
    damaged = pickle.loads(pickle.dumps(model))
    damaged.vectorizer_.vocabulary_ = {"good": 3}
    damaged.save(tmp_path / "m")
    with pytest.raises(ValueError, match="got one with a vocabulary of another size"):
        LSTMLanguageModel.load(tmp_path / "m")


def test_a_pickled_model_is_the_same_model(model):
    again = pickle.loads(pickle.dumps(model))
    assert again.score(TEXTS) == model.score(TEXTS)


def test_a_clone_is_not_fitted(model):
    with pytest.raises(NotFittedError):
        clone(model).score(TEXTS)
    assert clone(model).get_params() == model.get_params()


def test_a_search_chooses_by_score():
    search = GridSearchCV(tiny(), {"lr": [1e-5, 0.05]}, cv=2, error_score="raise").fit(TEXTS * 2)
    assert search.best_params_ == {"lr": 0.05}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_layers": 2}, "num_layers must be 1 where bidirectional=True, since a second layer"),
        (
            {"embedding_dim": "auto"},
            "The 'embedding_dim' parameter of LSTMLanguageModel must be an int in the range",
        ),
        ({"window": 1}, "The 'window' parameter of LSTMLanguageModel must be an int in the range"),
        ({"device": "abacus"}, "device must be 'auto' or a device of torch"),
        ({"callbacks": [1]}, r"callbacks\[0\] must be a callback of skorch"),
    ],
    ids=str,
)
def test_a_failed_fit_leaves_the_earlier_one(model, settings, sentence):
    again = pickle.loads(pickle.dumps(model)).set_params(**settings)
    with pytest.raises((TypeError, ValueError), match=sentence):
        again.fit(TEXTS)
    assert again.score(TEXTS) == model.score(TEXTS)


def test_what_is_no_text_or_direction_is_refused(model):
    with pytest.raises(TypeError, match="X must be a sequence of texts; got a single str"):
        model.score("a text")
    with pytest.raises(ValueError, match="direction must be 'forward' or 'backward'; got 'up'."):
        model.perplexity(TEXTS, direction="up")


class CtrlC(Callback):
    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("fraction", "which"), [(0.3, "best"), (0.0, "newest")])
def test_ctrl_c_keeps_the_weights_so_far(fraction, which):
    interrupted = tiny(callbacks=[CtrlC()], validation_fraction=fraction)
    with pytest.warns(UserWarning, match=f"interrupted after 1 epochs; the {which} weights"):
        interrupted.fit(TEXTS)
    assert interrupted.n_iter_ == 1 and interrupted.score(TEXTS) < 0


def test_ctrl_c_ends_a_search():
    search = GridSearchCV(tiny(callbacks=[CtrlC()]), {"lr": [0.01]}, cv=2)
    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
        search.fit(TEXTS)


def test_unfitted_models_say_so(tmp_path):
    for ask in (lambda m: m.score(TEXTS), lambda m: m.generate(), lambda m: m.save(tmp_path / "m")):
        with pytest.raises(NotFittedError):
            ask(tiny())


@pytest.mark.parametrize(
    "ask", [lambda m: m.perplexity(TEXTS), lambda m: m.generate(3, prompt="good", random_state=0)]
)
def test_an_answer_is_that_of_one_model(ask, monkeypatch):
    """Also where another thread fits while the texts are read."""
    later = tiny(hidden_size=4).fit(["quite another text"] * 9).model_
    model = tiny(max_epochs=1).fit(TEXTS)
    expected, read = ask(model), sklstm.language_model._read_whole

    def fit_meanwhile(vectorizer, texts):
        ids = read(vectorizer, texts)
        model.model_ = later
        return ids

    monkeypatch.setattr(sklstm.language_model, "_read_whole", fit_meanwhile)
    assert ask(model) == expected
    assert model.model_ is later
