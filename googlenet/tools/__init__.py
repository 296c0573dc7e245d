"""What people do with a run. Nothing in the rest of the package needs it."""
