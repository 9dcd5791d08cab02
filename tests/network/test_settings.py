import dataclasses

import pytest

from sklstm import LSTMLanguageModel, LSTMTextClassifier
from sklstm.network.settings import SHAPE, NetworkSettings

PARAMETERS = {"embedding_dim": 5, "hidden_size": 4}


def test_parameters_of_other_things_are_left_out_and_missing_ones_have_defaults():
    settings = NetworkSettings.from_parameters(PARAMETERS | {"lr": 0.1, "zoneout": 0.2})
    assert settings == NetworkSettings(5, 4, zoneout=0.2)
    assert settings.pooling == () and settings.backend == "auto"


@pytest.mark.parametrize("pooling", ["max", ["max"], ("max",)])
def test_pooling_is_a_tuple_of_names_however_it_is_given(pooling):
    settings = NetworkSettings.from_parameters(PARAMETERS | {"pooling": pooling})
    assert settings.pooling == ("max",)


@pytest.mark.parametrize("estimator", [LSTMTextClassifier(), LSTMLanguageModel()], ids=repr)
def test_known_settings_replace_those_of_an_estimator(estimator):
    settings = NetworkSettings.of(estimator, embedding_dim=7)
    assert settings.embedding_dim == 7
    parameters = estimator.get_params(deep=False)
    for name, value in dataclasses.asdict(settings).items():
        if name in parameters and name not in ("embedding_dim", "pooling"):
            assert value == parameters[name], name


def test_a_network_of_the_same_shape_resumes_an_earlier_one():
    earlier = NetworkSettings(5, 4)
    now = dataclasses.replace(earlier, dropout=0.5, backend="torch", attention="dot")
    now.check_resumes(earlier)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embedding_dim", 6),
        ("hidden_size", 5),
        ("num_layers", 2),
        ("bidirectional", False),
        ("cell", "peephole"),
        ("pooling", ("max",)),
        ("read_by", "sentence"),
    ],
)
def test_a_network_of_another_shape_does_not(name, value):
    earlier = NetworkSettings(5, 4)
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(earlier, **{name: value}).check_resumes(earlier)
    assert str(caught.value) == (
        f"{name} must stay {getattr(earlier, name)!r}, as in the fit that warm_start or "
        f"partial_fit resumes; got {value!r}. Use fit with warm_start=False to start anew."
    )
    assert name in SHAPE and len(SHAPE) == 7
