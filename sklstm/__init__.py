"""An LSTM for text that is used as any classifier of scikit-learn."""

import os
from importlib.metadata import version

# Threads of OpenMP that wait for work spin for milliseconds by default. Where other processes are
# busy, that takes several times as long as the work. GNU's runtime reads this when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
