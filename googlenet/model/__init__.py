"""The network: rows of data, and the Haiku modules that compute them.

To read in this order:

rows          the vocabulary: convolution, pooling, block, stage, head
blocks        kinds of Inception block, from the widths of a row of Table 1
googlenet     Table 1 of the paper and its variants (others: inception_v3, zoo)
variants      the model section of a config -> a network as rows
modules       rows -> Haiku modules (parts: convolution, regularization)
network       a network as two pure functions, init and apply

`graph` lists the operations of a network with their sizes; `initialization`
draws parameters; `context` is what all layers need to know.
"""
