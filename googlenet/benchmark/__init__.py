"""What `launch.py --mode=benchmark` is made of.

contenders    who is measured
runner        starts each as a process, in turn
ours          such a process: the training and evaluation step of this project
clock, flops  what it times with, and what it compares with
torch_peer    such a process: the same network in PyTorch
results       medians and ratios
table         what is printed
"""
