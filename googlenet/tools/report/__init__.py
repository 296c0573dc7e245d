"""One page on a run: curves, scores, errors, and what the network looks at."""
