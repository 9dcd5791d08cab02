"""From raw texts to batches of token ids: tokens, vocabulary, ids, word vectors, batches."""
