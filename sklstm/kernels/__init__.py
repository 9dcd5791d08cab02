"""The layer of the LSTM: one contract, several backends, one door."""

from sklstm.kernels.dispatch import available_backends, lstm_layer

__all__ = ["available_backends", "lstm_layer"]
