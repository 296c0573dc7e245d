"""Tools for finished runs. The rest of the package does not import them."""
