"""The report about a run: curves, scores, errors, maps of the network."""
