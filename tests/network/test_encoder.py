"""What the networks of all estimators have in common."""

import pytest
import torch

from sklstm.network.encoder import Embedded, find_different
from tests.builders import IDS, LENGTHS, build_language_network, build_network

BUILDERS = {
    "text": lambda seed=0: build_network(seed, pooling=("attention", "last")),
    "language": lambda seed=0: build_language_network(),
}


def test_padding_has_no_embedding_and_gets_no_gradient():
    network = build_network()
    assert not network.embedding.weight[0].any()
    network(IDS, LENGTHS).sum().backward()
    assert not network.embedding.weight.grad[0].any()
    assert network.embedding.weight.grad[3:11].abs().sum(dim=1).all()


def test_embeddings_are_those_of_each_token_with_and_without_an_index():
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    index = torch.tensor([[0, 3], [3, 1]])
    assert torch.equal(Embedded(vectors, index).each(), vectors[index])
    assert torch.equal(Embedded(vectors[index]).each(), vectors[index])


def test_different_ids_are_found_with_the_padding():
    different, place = find_different([torch.tensor([5, 2, 5]), torch.tensor([[7]])], 9)
    assert different.tolist() == [0, 2, 5, 7]
    assert different[place[torch.tensor([0, 2, 5, 7])]].tolist() == [0, 2, 5, 7]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_keeps_the_mean_and_acts_while_training_only(training):
    network, x = build_network().train(training), torch.ones(20, 1000)
    dropped = network.drop(x, 0.25)
    if training:
        assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
        assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    else:
        assert dropped is x
    assert network.drop(x, 0.0) is x


def test_seeds_decide_the_first_weights():
    one, same, other = build_network(0), build_network(0), build_network(1)
    for p, q, r in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(p, r) == (p.ndim == 1)  # biases start at fixed values


@pytest.mark.parametrize("kind", BUILDERS)
def test_building_leaves_torchs_random_state_unchanged(kind):
    before = torch.get_rng_state()
    BUILDERS[kind]()
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_have_one_name_in_all_networks():
    names = [
        {n for n, _ in build().named_parameters() if n.startswith(("embedding.", "lstm."))}
        for build in BUILDERS.values()
    ]
    assert names[0] == names[1] and "embedding.weight" in names[0]
