"""Predictions of a split, of one or several networks, and their worth."""
