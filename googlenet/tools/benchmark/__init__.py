"""What `launch.py --mode=benchmark` is made of.

contenders       who is measured
batch_sizes      with how many images a step
runner           starts each as a process, in turn; keeps what they tell
process          such a process: results as they come, time limit, end
lifeline         ends it when this program has ended
termination      SIGTERM as an exception
ours             what runs in it: training and evaluation of this project
stepping, parts  a run advanced step by step, a step taken apart
torch_peer       or the same network in PyTorch
clock, memory    what they measure with
rates, roofline  what the devices reach at best, what the layers need at least
results, table   medians and ratios; what is printed
"""
