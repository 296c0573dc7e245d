"""What a run reads and writes: checkpoints, its workdir, metrics."""
