"""The sections of `benchmarks/gpu.py`, each a function of a `Setting` that returns a dictionary for JSON."""
