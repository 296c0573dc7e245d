"""Exports a trained network as a program that other software can run.

The program takes stored pixels, uint8 [batch, H, W, C], preprocesses them and
returns `logits` and `probabilities`, float32 [batch, num_classes].
"""
