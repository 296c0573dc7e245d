"""A grid over fields: its trials, their processes, and what came out."""
