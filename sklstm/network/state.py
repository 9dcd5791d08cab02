"""A network as plain data, and back: its settings, its weights and its random state."""

import re

import numpy as np
import torch

from sklstm.network.encoder import Encoder
from sklstm.network.language_network import LSTMLanguageNetwork
from sklstm.network.settings import NetworkSettings
from sklstm.network.text_network import LSTMTextNetwork

NETWORKS = {kind.__name__: kind for kind in (LSTMTextNetwork, LSTMLanguageNetwork)}
DTYPES = ("float16", "float32", "float64")
# Sums of the products of two such weights are finite in float32.
MOST_WEIGHT = 1e15
# Pools without weights cost nothing in a file, and memory in a network.
MOST_POOLS = 100


def take_state(network: Encoder) -> dict:
    """Return the settings of a network, its weights and the state of its generator.

    Weights and states are arrays of numpy: a pickle of them has no code of torch.
    """
    return {
        "kind": type(network).__name__,
        "settings": vars(network.settings),
        "weights": {name: _to_array(weight) for name, weight in network.state_dict().items()},
        "generator": _to_array(network.generator.get_state()),
    }


def is_usable(weight: np.ndarray) -> bool:
    """Return whether a weight is finite, and so small that sums of its products are finite too."""
    return float(np.abs(weight).max(initial=0)) <= MOST_WEIGHT


@torch.no_grad()
def has_usable_weights(network: torch.nn.Module) -> bool:
    """Return whether all weights that are trained are usable."""
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    return all(bool((weight.abs() <= MOST_WEIGHT).all()) for weight in trained)


def _to_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def from_state(state: dict) -> Encoder:
    """Return the network of a state, on the CPU and for prediction.

    No memory is taken before all sizes are known to be those of the weights.

    Raises
    ------
    ValueError
        If settings and weights do not fit together.
    """
    settings, weights = NetworkSettings(**state["settings"]), state["weights"]
    settings.check()
    _check_counts(settings, weights)
    sizes = {"n_ids": len(weights["embedding.weight"])}
    if state["kind"] == LSTMTextNetwork.__name__:
        sizes["n_outputs"] = len(weights["head.weight"])
    with torch.device("meta"):  # which has shapes, and no memory
        network = NETWORKS[state["kind"]](settings, generator=None, **sizes)
    _check_shapes(network, weights)
    # Copies, since arrays may be read only, as those of a file that joblib has mapped.
    own = {name: torch.from_numpy(weight.copy()) for name, weight in weights.items()}
    network.load_state_dict(own, assign=True)
    network.generator = network.lstm.generator = torch.Generator()
    network.generator.set_state(torch.from_numpy(state["generator"].copy()))
    return network.eval()


def _check_counts(settings: NetworkSettings, weights: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless there are as many layers and pools with weights as the settings say.

    They cost memory even without weights.
    """
    layers = sum(re.fullmatch(r"lstm\.weight_hh_l\d+", name) is not None for name in weights)
    if settings.num_layers != layers:
        raise ValueError(f"the weights are not those of num_layers={settings.num_layers!r:.40}")
    pools = {name.split(".")[1] for name in weights if name.startswith("pools.")}
    if settings.pooling.count("attention") != len(pools) or len(settings.pooling) > MOST_POOLS:
        raise ValueError("the weights are not those of pooling")


def _check_shapes(network: Encoder, weights: dict[str, np.ndarray]) -> None:
    """Raise ValueError unless weights are those of a network, of one dtype."""
    expected = network.state_dict()
    if different := sorted(expected.keys() ^ weights.keys()):
        raise ValueError(f"the weights are not those of the settings: see {different[0]!r:.60}")
    dtype = weights["embedding.weight"].dtype
    for name, weight in weights.items():
        if weight.dtype != dtype or dtype.name not in DTYPES:
            raise ValueError(f"the weight {name!r} is of {weight.dtype}")
        shape = tuple(expected[name].shape)
        if weight.shape != shape:
            raise ValueError(
                f"the weight {name!r} is of shape {weight.shape}, and {shape} with these settings"
            )
