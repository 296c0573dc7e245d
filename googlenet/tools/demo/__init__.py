"""The page of --mode=demo: what it answers, and the server behind it."""
