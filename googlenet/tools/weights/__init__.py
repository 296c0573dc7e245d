"""Weights of other frameworks: their names and layouts, their files."""
