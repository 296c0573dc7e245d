"""What is under a run: devices, processes, compiler, heap, signals, terminal.

Imports nothing: launch.py needs supervisor and terminal before JAX.
"""
