"""Files of a run: workdir, checkpoints, metrics, event files, weights."""
