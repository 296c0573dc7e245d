"""What `launch.py --mode=...` can do: one file each."""
