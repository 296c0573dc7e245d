"""The network: rows of data, and the Haiku modules that compute them."""
