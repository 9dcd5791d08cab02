"""What y is: one class a text, a set of labels, or numbers."""
