"""The web page of --mode=demo: its server, and the data that it shows."""
