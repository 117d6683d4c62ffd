"""Speed, metrics, agreement and evaluation of models."""
