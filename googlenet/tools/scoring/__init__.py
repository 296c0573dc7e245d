"""Predictions of one or several networks for a split, and their scores."""
