"""An LSTM for text that is used as any classifier of scikit-learn."""

from importlib.metadata import version

from sklstm.classifier import LSTMTextClassifier
from sklstm.display import TokenAttributionDisplay, TrainingCurveDisplay
from sklstm.language_model import LSTMLanguageModel
from sklstm.regressor import LSTMTextRegressor
from sklstm.saving import load
from sklstm.text.vectorizer import SequenceVectorizer

__all__ = [
    "LSTMLanguageModel",
    "LSTMTextClassifier",
    "LSTMTextRegressor",
    "SequenceVectorizer",
    "TokenAttributionDisplay",
    "TrainingCurveDisplay",
    "__version__",
    "load",
]

__version__ = version("sklstm")
