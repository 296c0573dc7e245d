"""Values of fields that only make sense with certain values of others.

Each row names a field and says why its value cannot be, and what would do.
"""

from collections.abc import Callable

import ml_collections

Config = ml_collections.ConfigDict

CONTRADICTIONS: tuple[tuple[str, Callable[[Config], bool], str], ...] = (
  (
    'optimizer.step_epochs',
    lambda c: list(c.optimizer.step_epochs) != sorted(c.optimizer.step_epochs),
    'they must be in rising order',
  ),
  (
    'optimizer.warmup_steps',
    lambda c: c.optimizer.schedule == 'one_cycle' and c.optimizer.warmup_steps,
    "config.optimizer.schedule='one_cycle' begins with a rise of its own: "
    'give 0',
  ),
  (
    'train.early_stopping',
    lambda c: c.train.early_stopping and not c.checkpoint.best_metric,
    'it waits for a better config.checkpoint.best_metric, which is not set: '
    'give eval/accuracy, eval/top_5 or eval/loss there, or 0 here',
  ),
)
