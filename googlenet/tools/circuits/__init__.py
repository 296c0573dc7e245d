"""Circuits: how channels connect, how layers compare, what a layer knows.

linear.py     the linear path between two points of a network
expanded.py   the weights along this path: one kernel for each pair of channels
table.py      the strongest connections of a channel
pictures.py   pictures of kernels, similarities and atlases
cka.py        similarity of layers: centred kernel alignment
atlas.py      activation atlas: a grid of mean activations
icons.py      what an atlas shows in its cells
stream.py     images of a split in random order, to end points of networks
"""
