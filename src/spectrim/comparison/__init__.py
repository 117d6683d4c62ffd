"""Ways to spend fewer tokens, side by side: the same clips, the same weights, accuracy against MACs and time."""
