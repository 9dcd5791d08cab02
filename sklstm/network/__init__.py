"""The torch modules: embedding, LSTM, pooling, head; and the settings they are built from."""
