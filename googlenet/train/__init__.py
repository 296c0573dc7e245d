"""Training runs: the train step, the loop with its hooks, evaluation, resume.

Also precise BN, fine-tuning, NaN diagnosis, profiles and layer times.
"""
