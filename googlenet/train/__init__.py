"""The course of a run: epochs, evaluations, what it shows, how it goes on.

Beside it batch norm estimated anew, where it became NaN, traces, layer times.
"""
