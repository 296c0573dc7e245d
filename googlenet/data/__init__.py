"""Labelled images: data sets, splits, batches on devices, image files."""
