"""Images with labels: data sets, splits, batches on devices, streams, files."""
