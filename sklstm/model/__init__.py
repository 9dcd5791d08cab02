"""What was learnt, and what is computed from it: outputs, validation, blends, texts, files."""
