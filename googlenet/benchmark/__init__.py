"""`launch.py --mode=benchmark`: this machine, this network, and its peers.

runner    starts every contender as a process, in turn; medians and ratios
ours      such a process: the training and evaluation step of this project
torch_peer  such a process: the same network in PyTorch
table     what is printed
"""
