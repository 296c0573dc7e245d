"""The machine under a run: devices, processes, heap, signals, terminal."""
