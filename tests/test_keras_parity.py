"""The code of docs/keras.md runs, and Keras' networks give our probabilities with their weights.

The largest difference that was measured is 1e-7, of the states of network 7.
"""

import copy
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from sklstm import LSTMTextClassifier, SequenceVectorizer
from sklstm.datasets import load_docstrings

PAGE = Path(__file__).parent.parent / "docs" / "keras.md"
TOLERANCE = {"rtol": 0, "atol": 1e-6}

pytestmark = [
    # Keras calls numpy.array(tensor, copy=False) of torch's tensors.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Limiting epochs to 1:UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def keras(tmp_path_factory):
    """Import Keras, which reads its settings from the environment then and only then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_TORCH_DEVICE", "cpu")
        patch.setenv("KERAS_MAX_EPOCHS", "1")  # instead of up to 20: the test is short
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        import keras
    assert keras.backend.backend() == "torch"
    return keras


@pytest.fixture(autouse=True)
def _seeded():
    """Seed Python's generator, from which Keras draws the seeds of weights and masks."""
    state = random.getstate()
    random.seed(0)
    yield
    random.setstate(state)


def read_page():
    """Return the blocks of code of each section, by its title."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    code = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
    return {section.partition("\n")[0]: code.findall(section) for section in sections}


BLOCKS = read_page()


def find_blocks(number):
    """Return Keras' block of a network, None where there is none, and ours."""
    (blocks,) = [blocks for title, blocks in BLOCKS.items() if title.startswith(f"{number}. ")]
    (ours,) = [block for block in blocks if "import keras" not in block]
    return next((block for block in blocks if "import keras" in block), None), ours


def run(block, **names):
    exec(compile(block, PAGE.name, "exec"), names)
    return names


def textbook():
    (block,) = BLOCKS["A textbook LSTM"]
    return run(block)["TEXTBOOK"]


def read_texts(n_texts, n_long=0):
    """Return short docstrings, after some that are too long for every network that cuts them."""
    paragraphs = load_docstrings()
    short = [k for k, text in enumerate(paragraphs.data) if 5 <= len(text.split()) <= 15][:n_texts]
    texts = [paragraphs.data[k] for k in short]
    texts[:n_long] = [" ".join(paragraphs.data[k : k + 15]) for k in range(n_long)]
    return texts, np.unique(paragraphs.target[short], return_inverse=True)[1]


def run_both(number, texts, labels):
    """Run our block of a network, then Keras' on the same tokens; return the names of both."""
    theirs, ours = find_blocks(number)
    data = {"texts": texts, "labels": labels, "n_classes": len(np.unique(labels))}
    ours = run(ours, TEXTBOOK=textbook(), **data)
    vectorizer = copy.deepcopy(ours["clf"].vectorizer_).set_params(max_length=None)
    sequences = list_sequences(vectorizer, texts)
    return run(theirs, sequences=sequences, **data), ours


def list_sequences(vectorizer, texts):
    ids, offsets = vectorizer.transform_ragged(texts)
    return [row.tolist() for row in np.split(ids, offsets[1:-1])]


def copy_weights(model, network):
    """Give our network the weights of Keras' model: an embedding, LSTMs, a dense layer."""
    weights = [
        (type(layer).__name__, layer.get_weights()) for layer in model.layers if layer.weights
    ]
    (_, (embedding,)), *lstms, (_, (kernel, bias)) = weights
    state = {"embedding.weight": embedding[: network.embedding.num_embeddings]}
    for number, (kind, of_layer) in enumerate(lstms):
        assert kind == ("Bidirectional" if network.lstm.bidirectional else "LSTM")
        for k, suffix in enumerate((f"_l{number}", f"_l{number}_reverse")[: len(of_layer) // 3]):
            weight_ih, weight_hh, bias_ih = of_layer[3 * k : 3 * k + 3]
            state[f"lstm.weight_ih{suffix}"] = weight_ih.T
            state[f"lstm.weight_hh{suffix}"] = weight_hh.T
            state[f"lstm.bias_ih{suffix}"] = bias_ih
            state[f"lstm.bias_hh{suffix}"] = np.zeros_like(bias_ih)
    if kernel.shape[1] == 1:  # a sigmoid is a softmax whose first logit is 0
        kernel, bias = np.hstack([0 * kernel, kernel]), np.hstack([0 * bias, bias])
    state |= {"head.weight": kernel.T, "head.bias": bias}
    network.load_state_dict({name: torch.tensor(value) for name, value in state.items()})


def test_the_page_has_every_network():
    numbers = [title.partition(".")[0] for title in BLOCKS if title[0].isdigit()]
    assert numbers == ["1", "2", "3", "4", "5", "6", "7", "8"]


def test_network_1_lstm_with_dropout():
    texts, labels = read_texts(24)
    theirs, ours = run_both(1, texts, labels)
    copy_weights(theirs["model"], ours["clf"].model_.network)
    assert_close(ours["clf"].predict_proba(texts), theirs["probabilities"])


def test_network_2_two_layers():
    texts, labels = read_texts(24, n_long=2)
    theirs, ours = run_both(2, texts, labels % 2)
    assert theirs["ids"].shape[1] == 100 < max(map(len, theirs["sequences"]))
    copy_weights(theirs["model"], ours["clf"].model_.network)
    assert_close(ours["clf"].predict_proba(texts)[:, 1], theirs["probabilities"])


@pytest.mark.filterwarnings("ignore:.*global_max_pooling1d.*does not support masking:UserWarning")
def test_network_3_both_directions_attention_and_two_pools():
    texts, labels = read_texts(24)
    theirs, ours = run_both(3, texts, labels)
    copy_weights(theirs["model"], ours["clf"].model_.network)
    # One by one: where a text is padded, Keras' maximum is not ours, as the page says.
    probabilities = ours["clf"].predict_proba(texts)
    for sequence, own in zip(theirs["sequences"], probabilities, strict=True):
        assert_close(own, theirs["model"](np.array([sequence]))[0].detach().numpy())
    lengths = np.array([len(sequence) for sequence in theirs["sequences"]])
    longest = lengths == lengths.max()
    assert_close(probabilities[longest], theirs["probabilities"][longest])
    assert np.abs(probabilities - theirs["probabilities"]).max() > 1e-4


def test_network_4_peepholes():
    texts, labels = read_texts(8)
    theirs, ours = find_blocks(4)
    assert theirs is None  # tests/kernels compares this cell with its formulas
    ours = run(ours, TEXTBOOK=textbook(), texts=texts, labels=labels)
    assert ours["probabilities"].shape == (8, len(np.unique(labels)))


def test_network_5_most_frequent_words():
    texts, labels = read_texts(24)
    theirs, ours = run_both(5, texts, labels % 2)
    copy_weights(theirs["model"], ours["clf"].model_.network)
    assert_close(ours["clf"].predict_proba(texts), theirs["probabilities"])


def test_network_7_states_as_features():
    texts, labels = read_texts(24, n_long=2)
    theirs, ours = run_both(7, texts, labels)
    copy_weights(theirs["model"], ours["clf"].model_.network)
    assert_close(ours["pipeline"][:-1].transform(texts), theirs["features"])


def test_network_8_language_model():
    texts, _ = read_texts(8)
    theirs, ours = find_blocks(8)
    ours = run(ours, texts=texts)
    sequences = list_sequences(ours["model"].vectorizer_, texts)
    theirs = run(theirs, sequences=sequences)
    # Two networks: one update each leaves both near a uniform distribution over their words.
    assert 1 < ours["perplexity"] <= 20_000
    assert 1 < theirs["perplexity"] <= 20_001
    assert len(ours["continued"]) == 3


def test_the_textbook_parameters_train_as_keras_does(keras):
    """From the same weights, the same update on one batch of all texts."""
    texts, labels = read_texts(20)
    clf = LSTMTextClassifier(
        **textbook(),
        vectorizer=SequenceVectorizer(min_df=1, max_length=None),
        embedding_dim=6,
        hidden_size=7,
        max_epochs=1,
    ).fit(texts, labels)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Embedding(len(clf.vectorizer_.tokens_), 6, mask_zero=True),
            layers.LSTM(7),
            layers.Dense(len(clf.classes_), activation="softmax"),
        ]
    )
    # Keras adds epsilon before it corrects the moments of the first update, and torch after it.
    adam = keras.optimizers.Adam(epsilon=1e-8 * 0.001**0.5)
    model.compile(adam, "sparse_categorical_crossentropy")
    ids = keras.utils.pad_sequences(list_sequences(clf.vectorizer_, texts))
    probabilities = model.predict(ids, verbose=0)
    copy_weights(model, clf.model_.network)
    assert_close(clf.predict_proba(texts), probabilities)
    before = read_weights(clf)
    clf.set_params(warm_start=True).fit(texts, labels)
    model.fit(ids, labels, verbose=0)
    after = read_weights(clf)
    copy_weights(model, clf.model_.network)
    theirs = read_weights(clf)
    # Two biases that are added move twice as far as one, as the page says.
    summed = "lstm.bias_ih_l0"
    after[summed] += after.pop("lstm.bias_hh_l0")
    theirs[summed] += theirs[summed] - before[summed] + theirs.pop("lstm.bias_hh_l0")
    assert after.keys() == theirs.keys()
    for name, weight in after.items():
        assert np.abs(weight - before[name]).max() > 0.9e-3, name
        assert_close(weight, theirs[name])


def read_weights(clf):
    return {name: w.numpy().copy() for name, w in clf.model_.network.state_dict().items()}


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, **TOLERANCE)
