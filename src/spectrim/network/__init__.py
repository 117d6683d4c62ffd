"""The encoder and its parts: tokens, blocks, positions, losses, multiply-accumulates; masked pre-training."""
