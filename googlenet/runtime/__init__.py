"""What is under a run: devices, processes, compiler, signals, terminal.

Imports nothing: launch.py needs backend, supervisor and terminal before JAX.
"""
