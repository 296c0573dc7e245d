"""The parts of `launch.py --mode=benchmark`.

A peer is this project in one precision, or PyTorch in one form.

contenders       the peers, each as a command to start
batch_sizes      the batch sizes to measure
runner           starts each peer in turn and collects its results
process          runs one peer as a process with a time limit
lifeline         kills that process when the benchmark itself has ended
termination      turns signals into an exception
ours             the peer process of this project
stepping, parts  times whole steps, and the parts of a training step
torch_peer       the peer process of PyTorch
clock, memory    measure time and peak memory
rates, roofline  highest rates of the devices, least time of the layers
results, table   medians and ratios; the printed table
"""
