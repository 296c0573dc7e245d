"""Sweeps over values of fields: trials, their processes, their results."""
