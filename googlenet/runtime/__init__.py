"""What is under a run: devices, memory, processes, compiler, signals, terminal.

Imports nothing: launch.py needs backend, supervisor and terminal before JAX.
"""
