import dataclasses

import pytest

from sklstm import LSTMLanguageModel, LSTMTextClassifier
from sklstm.training.settings import TrainingSettings

#: Fields that are no parameters of any estimator.
OWN = {"keep_best", "min_epochs", "most_epochs", "continues"}


@pytest.mark.parametrize(
    "estimator",
    [LSTMTextClassifier(lr=0.3, adversarial=0.1), LSTMLanguageModel(lr=0.3)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_settings_are_the_parameters_of_an_estimator_or_their_defaults(estimator):
    settings, parameters = TrainingSettings.of(estimator), estimator.get_params(deep=False)
    assert settings.lr == 0.3
    for field in dataclasses.fields(TrainingSettings):
        expected = parameters.get(field.name, field.default)
        assert getattr(settings, field.name) == expected, field.name


def test_an_estimator_has_a_parameter_for_each_field():
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    estimators = LSTMTextClassifier(), LSTMLanguageModel()
    parameters = set().union(*(estimator.get_params(deep=False) for estimator in estimators))
    assert names - OWN <= parameters


def test_known_settings_replace_parameters():
    settings = TrainingSettings.of(LSTMTextClassifier(), keep_best=True, lr=0.7)
    assert settings.keep_best and settings.lr == 0.7


def test_one_pass_is_one_epoch_at_a_constant_rate_to_be_followed_by_more():
    settings = TrainingSettings.of(
        LSTMTextClassifier(gradual_unfreezing=True, max_epochs=9, ema=0.9, adversarial=0.1)
    )
    one_pass = settings.for_one_pass()
    changes = {
        "max_epochs": 1,
        "lr_schedule": None,
        "gradual_unfreezing": False,
        "ema": None,
        "early_stopping": False,
        "continues": True,
    }
    for name, value in dataclasses.asdict(one_pass).items():
        assert value == changes.get(name, getattr(settings, name)), name
    assert settings.max_epochs == 9  # a copy was changed
