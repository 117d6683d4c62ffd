"""Recipes to trained models, on transformers' Trainer."""
