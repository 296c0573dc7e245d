"""The course of a run: epochs, evaluations, what it shows, how it goes on."""
