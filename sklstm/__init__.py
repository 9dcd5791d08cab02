"""An LSTM for text that is used as any classifier of scikit-learn."""

import os
from importlib.metadata import version

# Threads of OpenMP that wait for work spin for milliseconds by default. Where other processes are
# busy, that takes several times as long as the work. So they sleep, but only after some tens of
# microseconds, since to wake them takes as long. GNU's runtime reads this when torch loads it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

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
