"""Depths, and the learning rates that follow from them."""

import pytest

from sklstm.training.fine_tuning import count_stages, list_rates, measure_depth


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("head.bias", 0),
        ("pools.1.score.weight", 0),
        ("merge.weight", 0),
        ("lstm.weight_ih_l11", 1),
        ("lstm.bias_hh_l11_reverse", 1),
        ("lstm.peephole_l1", 11),
        ("lstm.weight_ih_l0_reverse", 12),
        ("embedding.weight", 13),
    ],
)
def test_depths(name, depth):
    assert measure_depth(name, 12) == depth


def test_rates_fall_by_the_same_factor_at_each_depth():
    rates = list_rates(0.8, 0.5, 2)
    assert [weights for _, weights, _ in rates] == ["lstm.*_l1*", "lstm.*_l0*", "embedding.*"]
    assert [rate for *_, rate in rates] == [0.4, 0.2, 0.1]


def test_stages():
    assert count_stages(1, freeze_embeddings=False) == 3
    assert count_stages(2, freeze_embeddings=True) == 3
