"""One file for each `--mode` of launch.py, except for `train`."""
