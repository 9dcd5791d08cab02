"""Texts moved to where the network errs most: how far, in which direction, and to what end."""

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, Freezer, GradientNormClipping

from sklstm import LSTMTextClassifier
from sklstm.network.encoder import Embedded
from sklstm.text.batching import Batch
from sklstm.training.adversarial import Adversarial, choose_step, measure_tokens, scale
from sklstm.training.loop import train
from sklstm.training.steps import Supervised
from tests.builders import (
    LONG_IDS,
    LONG_LENGTHS,
    SENTENCES,
    build_network,
    build_small_net,
    make_batches,
    make_task,
    make_training,
    mark,
)
from tests.conftest import TINY

TASK = make_task()
LIVE = (LONG_IDS != 0).unsqueeze(2)
BATCH = Batch(
    LONG_LENGTHS, LONG_IDS, torch.tensor([0, 2, 1, 1, 0]), torch.tensor([1.5, 0.5, 1.0, 2.0, 0.25])
)


def ids_for(network):
    return mark(LONG_IDS) if network.settings.read_by else LONG_IDS


DROPOUTS = {
    "dropout": 0.4,
    "embedding_dropout": 0.3,
    "word_dropout": 0.2,
    "recurrent_dropout": 0.2,
    "backend": "torch",
}


def losses_of(outputs):
    return torch.nn.functional.cross_entropy(outputs, BATCH.targets, reduction="none")


def loss_of(outputs):
    return (losses_of(outputs) * BATCH.weights).mean()


def make_step(size, virtual_size):
    return Adversarial(TASK, size, virtual_size)


def move_by(direction, x, size, live=LIVE):
    return scale(direction, size * measure_tokens(x, live), live)


def token_norms(x):
    """Return the root mean square norm of a token, by text."""
    squares = x.square().sum(2)
    return torch.stack([squares[:n, k].mean() for k, n in enumerate(LONG_LENGTHS)]).sqrt()


def random_like(x, seed=1):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)


def confident(**changes):
    """Return a network whose outputs depend much on the texts, and the embedded texts."""
    network = build_network(**changes).double()
    with torch.no_grad():
        for parameter in (network.embedding.weight, network.head.weight):
            parameter.mul_(5.0)
    return network, network.embed(LONG_IDS).each().detach()


def classify(network, x):
    return network.classify(network.read(Embedded(x), ids_for(network), LONG_LENGTHS))


def gradient(network, x, loss):
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(loss(classify(network, x)), x)
    return grad


# How far


@pytest.mark.parametrize("size", [1.0, 1e-30])
def test_a_move_is_a_multiple_of_a_tokens_norm_and_leaves_padding_unchanged(size):
    x = random_like(torch.empty(17, 5, 4), 0)
    move = move_by(size * random_like(x), x, 0.3)
    torch.testing.assert_close(torch.linalg.vector_norm(move, dim=(0, 2)), 0.3 * token_norms(x))
    assert not move[~LIVE.expand_as(move)].any()


def test_a_text_without_direction_is_not_moved():
    x = random_like(torch.empty(17, 5, 4), 0)
    direction = random_like(x)
    direction[:, 2] = 0.0
    move = move_by(direction, x, 0.3)
    assert not move[:, 2].any() and move[0, [0, 1, 3, 4]].all()


# In which direction


def test_the_move_raises_the_loss_as_its_gradient_says_and_more_than_chance():
    network, x = confident()
    with torch.no_grad():
        before = losses_of(classify(network, x))
    grad = gradient(network, x, loss_of)
    rises = {}
    for size in (1e-4, 0.1):
        move = move_by(grad, x, size)
        with torch.no_grad():
            rises[size] = losses_of(classify(network, x + move)) - before
            by_chance = [
                losses_of(classify(network, x + move_by(random_like(x, k), x, size)))
                for k in range(20)
            ]
        assert (rises[size] > 0).all()
        assert (rises[size] > torch.stack(by_chance).amax(0) - before).all()
    # To first order it is the norm of the move times that of the gradient.
    own = grad * len(BATCH.weights) / BATCH.weights.view(1, -1, 1)
    expected = 1e-4 * torch.linalg.vector_norm(own, dim=(0, 2)) * token_norms(x)
    torch.testing.assert_close(rises[1e-4], expected, rtol=0.01, atol=0)


def test_the_virtual_direction_changes_the_outputs_more_than_chance():
    """The moves that the network is trained on are read from the passes it makes."""
    network, _ = confident()
    passes = passes_of(network, make_step(0.0, 0.1))
    clean, search, moved = passes
    with torch.no_grad():
        outputs = classify(network, clean)
        found = TASK.divergence(outputs, classify(network, moved))
        for k in range(20):
            move = move_by(random_like(clean, k), clean, 0.1)
            by_chance = TASK.divergence(outputs, classify(network, clean + move))
            # In the five dimensions of a single token, chance finds as good a direction.
            assert (found > by_chance)[LONG_LENGTHS > 1].all()
    searched, tried = (torch.linalg.vector_norm(t - clean, dim=(0, 2)) for t in (search, moved))
    torch.testing.assert_close(searched, 0.01 * torch.linalg.vector_norm(clean * LIVE, dim=(0, 2)))
    torch.testing.assert_close(tried, 0.1 * token_norms(clean))


def passes_of(network, step):
    """Return the embedded texts of each pass of a step."""
    seen, read = [], network.read
    network.read = lambda embedded, *others: (
        seen.append(embedded.vectors.detach().clone()) or read(embedded, *others)
    )
    step(network, BATCH._replace(ids=ids_for(network)))
    del network.read
    return seen


# What is trained on


@pytest.mark.parametrize("changes", [{}, DROPOUTS, SENTENCES, {"cell": "layer_norm"}], ids=str)
@pytest.mark.parametrize("sizes", [(0.05, 0), (0, 0.05), (0.1, 0.2)])
def test_gradients_are_those_of_the_sum(sizes, changes):
    step = make_step(*sizes)
    network, _ = confident(**changes)
    before = network.generator.get_state()
    passes = passes_of(network, step)
    grads = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    network.zero_grad()
    network.generator.set_state(before)
    total, outputs = step(network, BATCH._replace(ids=ids_for(network)))

    # The same by hand: all passes with the same masks, the moves as constants.
    network.zero_grad()
    network.generator.set_state(before)
    x = network.embed(LONG_IDS).each()
    if step.virtual_size:
        torch.empty(x.shape, dtype=x.dtype).normal_(generator=network.generator)
    masks = network.generator.get_state()

    def again(moved):
        network.generator.set_state(masks)
        return classify(network, x + (moved - passes[0]))

    clean = again(passes[0])
    losses = [loss_of(clean)]
    if step.size:
        losses.append(loss_of(again(passes[1])))
    if step.virtual_size:
        divergences = TASK.divergence(clean.detach(), again(passes[-1]))
        losses.append((divergences * BATCH.weights).mean())
    sum(losses).backward()
    torch.testing.assert_close(outputs, clean.detach())
    torch.testing.assert_close(total, sum(losses).detach())
    assert not total.requires_grad and not outputs.requires_grad
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_masks_are_those_of_a_training_without():
    """After a step the generator is in the state that it has after a plain one."""
    plain, network = build_network(**DROPOUTS), build_network(**DROPOUTS)
    plain(LONG_IDS, LONG_LENGTHS)
    make_step(0.05, 0.0)(network, BATCH)
    assert torch.equal(plain.generator.get_state(), network.generator.get_state())


@pytest.mark.parametrize("sizes", [(0.02, 0), (0, 0.02), (0.1, 0.1)])
def test_rows_that_lag_end_at_the_same(sizes):
    """A callback that reads gradients gets dense ones; the weights become the same."""
    seen = []

    class Spy(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            seen.extend(p.grad.is_sparse for _, p in named_parameters if p.grad is not None)

    callbacks = [Spy(), GradientNormClipping(1e9)]
    plain = build_small_net(step=make_step(*sizes), ema=0.9)
    spied = build_small_net(step=make_step(*sizes), ema=0.9, callbacks=callbacks)
    for net in (plain, spied):
        train(net, make_batches(), n_epochs=3)
    assert seen and not any(seen)
    for one, other in zip(plain.module_.parameters(), spied.module_.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_settings_choose_the_step():
    assert choose_step(TASK, make_training()) == Supervised(TASK)
    for sizes in ((0.1, 0.0), (0.0, 0.2), (0.1, 0.2)):
        settings = make_training(adversarial=sizes[0], virtual_adversarial=sizes[1])
        assert choose_step(TASK, settings) == make_step(*sizes)


def test_a_frozen_embedding_stays():
    net = build_small_net(step=make_step(0.05, 0.05), callbacks=[Freezer("embedding.*")])
    before = [parameter.detach().clone() for parameter in net.module_.parameters()]
    train(net, make_batches(), n_epochs=1)
    for (name, parameter), old in zip(net.module_.named_parameters(), before, strict=True):
        assert torch.equal(parameter, old) == (name == "embedding.weight")


# The classifier

BOTH = {"adversarial": 0.2, "virtual_adversarial": 0.2}


@pytest.mark.parametrize(
    "changes",
    [
        {"adversarial": 0.3},
        {"virtual_adversarial": 0.3, "read_by": "sentence"},
        BOTH | {"precision": "bfloat16", "dropout": 0.2},
        BOTH | {"cell": "peephole", "zoneout": 0.1, "label_smoothing": 0.2, "num_layers": 2},
        BOTH | {"backend": "reference", "attention": "dot", "pooling": ("last", "attention")},
        BOTH | {"embedding_dropout": 0.3, "class_weight": "balanced", "early_stopping": False},
    ],
    ids=str,
)
def test_it_learns_repeats_and_predicts_one_by_one(tiny, texts, labels, changes):
    model = tiny.set_params(max_epochs=12, **changes).fit(texts, labels)
    assert model.score(texts, labels) >= 0.8
    probabilities = model.predict_proba(texts)
    again = LSTMTextClassifier(**model.get_params()).fit(texts, labels)
    np.testing.assert_array_equal(again.predict_proba(texts), probabilities)
    alone = np.vstack([model.predict_proba([text]) for text in texts[:10]])
    atol = 1e-3 if model.precision == "bfloat16" else 1e-6
    np.testing.assert_allclose(alone, probabilities[:10], rtol=0, atol=atol)
    without = again.set_params(adversarial=0.0, virtual_adversarial=0.0).fit(texts, labels)
    assert without.loss_curve_ != model.loss_curve_


def test_it_resumes_in_portions_and_uses_weights(tiny, texts, labels):
    tiny.set_params(**BOTH).partial_fit(texts, labels, classes=["neg", "pos"])
    for _ in range(15):
        tiny.partial_fit(texts, labels)
    assert tiny.score(texts, labels) > 0.9
    weights = np.where(labels == "pos", 1e-9, 1.0)
    tiny.fit(texts, labels, sample_weight=weights)
    assert (tiny.predict(texts) == "neg").mean() > 0.9


def test_the_outputs_depend_less_on_small_moves(texts, labels):
    """What it is for: at the end of the training a move of this size costs less."""
    network_of = {}
    for size in (0.0, 0.5):
        parameters = TINY | {"max_epochs": 40, "early_stopping": False, "ema": None}
        model = LSTMTextClassifier(**parameters, adversarial=size, label_smoothing=0.0)
        network_of[size] = model.fit(texts, labels).net_.module_
    rise = {
        size: rise_of_loss(network, model, texts, labels) for size, network in network_of.items()
    }
    assert rise[0.5] < 0.7 * rise[0.0]


def rise_of_loss(network, model, texts, labels):
    """Return how much a move of 0.5 raises the mean loss of the texts."""
    ids = torch.from_numpy(model.vectorizer_.transform(texts[:10]).T.copy())
    lengths = (ids != 0).sum(0)
    targets = torch.as_tensor(labels[:10] == "pos").long()

    def loss(x):
        outputs = network.classify(network.read(Embedded(x), ids, lengths))
        return torch.nn.functional.cross_entropy(outputs, targets)

    x = network.embed(ids).each().detach().requires_grad_()
    before = loss(x)
    (grad,) = torch.autograd.grad(before, x)
    move = move_by(grad, x.detach(), 0.5, (ids != 0).unsqueeze(2))
    return loss(x.detach() + move).item() - before.item()
