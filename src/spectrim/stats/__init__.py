"""Statistics without models: bootstrap intervals, Kendall correlation, one-dimensional clusters."""
