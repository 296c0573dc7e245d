"""A trained network as a file that other programs run.

Every format takes stored pixels, uint8 [batch, H, W, C], and gives `logits` and
`probabilities`, float32 [batch, num_classes]; preprocessing is part of it.
"""
