"""Data sets that the project synthesises, in the layouts of the real ones."""
