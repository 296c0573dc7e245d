"""The networks: layer specs as plain data, and Haiku modules that apply them.

Read in this order:

rows          layer specs: convolution, pooling, block, stage, head
blocks        Inception blocks, made from the widths of a row of Table 1
googlenet     Table 1 of the paper and its variants (others: inception5h,
              inception_v3, small, zoo)
variants      the model section of a config -> a network as layer specs
modules       layer specs -> Haiku modules (with convolution, regularization)
network       a network as two pure functions, init and apply

`graph` lists the operations of a network with their sizes, `initialization`
draws parameters, `context` holds settings shared by all layers.
"""
