"""The weights of a network by their depth below the head: which are trained when, and how fast.

At depth 0 are pools and head, at 1 the top layer of the LSTM, one deeper each layer below it, and
at ``num_layers + 1`` the embedding. What has learnt before (from texts without labels, say) wants
to be changed with care: the deeper, the more slowly, and the later (Howard & Ruder 2018, Universal
Language Model Fine-tuning for Text Classification).
"""

import re


def measure_depth(name: str, num_layers: int) -> int:
    """Return the depth of a weight of a network, by its name in it."""
    if name.startswith("embedding."):
        return num_layers + 1
    layer = re.fullmatch(r"lstm\..*_l(\d+)(_reverse)?", name)
    return 0 if layer is None else num_layers - int(layer[1])


def list_rates(lr: float, decay: float, num_layers: int) -> list[tuple[str, str, float]]:
    """Return a learning rate for each depth but 0: ``lr * decay**depth``.

    With it come patterns for the names of the biases and of all weights of that depth. The first
    pattern that fits a name counts: that of layer 1 fits layer 10 as well, which comes before it.
    """
    layers = [(f"lstm.*bias*_l{k}*", f"lstm.*_l{k}*") for k in reversed(range(num_layers))]
    names = [*layers, ("embedding.*bias*", "embedding.*")]
    return [(*pair, lr * decay**depth) for depth, pair in enumerate(names, start=1)]


def count_stages(num_layers: int, *, freeze_embeddings: bool) -> int:
    """Return in how many epochs a network unfreezes: one for each depth that is ever trained."""
    return num_layers + (1 if freeze_embeddings else 2)
