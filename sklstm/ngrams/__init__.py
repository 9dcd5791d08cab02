"""The linear model of n-grams that is blended with the network."""
