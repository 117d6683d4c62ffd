"""GPU kernels of pruning."""
