"""Spectrim: audio spectrogram transformers that drop the patches that do not matter."""
