"""What a network is built from, whatever the estimator."""

from dataclasses import dataclass, fields
from numbers import Integral, Real

import numpy as np

from sklstm.kernels.cells import CELLS
from sklstm.kernels.dispatch import BACKENDS
from sklstm.network.pooling import POOLINGS

#: The settings that decide which weights a network has, and what these have learnt to see.
SHAPE = (
    "embedding_dim",
    "hidden_size",
    "num_layers",
    "bidirectional",
    "cell",
    "pooling",
    "read_by",
)


@dataclass(frozen=True)
class NetworkSettings:
    """The settings of a network; each field has the name of the parameter it comes from.

    An estimator without a parameter has the default below.

    Parameters
    ----------
    embedding_dim, hidden_size, num_layers : int
        Sizes of the embedding and of the LSTM.
    bidirectional : bool
        Whether the LSTM also reads each text backwards.
    cell, backend : str
        Of the LSTM; see :class:`~sklstm.lstm.LSTM`.
    precision : {'auto', 'float32', 'bfloat16'}
        What the LSTM computes in. 'auto' is bfloat16 while training where that is faster, and
        float32 otherwise. Everything around the LSTM is in the weights' dtype always.
    attention : {'dot'} or None
        Whether each state is replaced by the mean of all states, weighted by the softmax of
        its dot products with them.
    read_by : {'sentence'} or None
        With 'sentence' each sentence is read and pooled separately, and a weighted mean of these is
        the representation of the text.
    pooling : tuple of str
        Names of the pools, concatenated in this order.
    dropout : float
        Share of the pooled representation, and of the states between layers, to drop.
    embedding_dropout : float
        Share of the numbers in the embeddings to drop, the same for equal tokens of a batch.
    word_dropout : float
        Share of the tokens to replace by the unknown one.
    input_dropout, recurrent_dropout, weight_dropout, zoneout : float
        Of the LSTM; see :class:`~sklstm.lstm.LSTM`.
    """

    embedding_dim: int
    hidden_size: int
    num_layers: int = 1
    bidirectional: bool = True
    cell: str = "lstm"
    backend: str = "auto"
    precision: str = "auto"
    attention: str | None = None
    read_by: str | None = None
    pooling: tuple[str, ...] = ()
    dropout: float = 0.0
    embedding_dropout: float = 0.0
    word_dropout: float = 0.0
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0
    zoneout: float = 0.0

    @classmethod
    def of(cls, estimator, **known) -> "NetworkSettings":
        """Return the settings of an estimator; ``known`` ones replace its parameters."""
        return cls.from_parameters(vars(estimator) | known)

    @classmethod
    def from_parameters(cls, parameters: dict) -> "NetworkSettings":
        """Return the settings among the parameters of an estimator."""
        names = {field.name for field in fields(cls)} & parameters.keys()
        values = {name: parameters[name] for name in names}
        pooling = values.get("pooling", ())
        values["pooling"] = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        return cls(**values)

    def check_resumes(self, earlier: "NetworkSettings") -> None:
        """Raise ValueError unless a network of these settings can take the earlier weights."""
        for name in SHAPE:
            before, now = getattr(earlier, name), getattr(self, name)
            if before != now:
                raise ValueError(
                    f"{name} must stay {before!r}, as in the fit that warm_start or partial_fit "
                    f"resumes; got {now!r}. Use fit with warm_start=False to start anew."
                )

    def check(self) -> None:
        """Raise ValueError for settings that no parameters could give, as a file may hold them."""
        integers = ("embedding_dim", "hidden_size", "num_layers")
        shares = [name for name in vars(self) if name.endswith("dropout") or name == "zoneout"]
        right = {name: _is_size(getattr(self, name)) for name in integers}
        right |= {name: _is_share(getattr(self, name)) for name in shares}
        right |= {
            "bidirectional": isinstance(self.bidirectional, bool | np.bool_),
            "cell": self.cell in CELLS,
            "backend": self.backend in ("auto", *BACKENDS),
            "precision": self.precision in ("auto", "float32", "bfloat16"),
            "attention": self.attention in (None, "dot"),
            "read_by": self.read_by in (None, "sentence"),
            "pooling": isinstance(self.pooling, tuple) and set(self.pooling) <= POOLINGS.keys(),
        }
        for name, is_right in right.items():
            if not is_right:
                raise ValueError(f"{name} must not be {getattr(self, name)!r:.40}")


def _is_size(number) -> bool:
    return isinstance(number, Integral) and number >= 1


def _is_share(number) -> bool:
    return isinstance(number, Real) and 0 <= number < 1
