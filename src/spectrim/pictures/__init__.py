"""Figures and report pages, drawn from arrays and table rows, independent of any model."""
