"""The base of a run: devices, memory, processes, compiler, signals, terminal.

This file imports nothing: backend, progress, signals, streams, supervisor and
terminal must be importable before JAX.
"""
