"""Fields that contradict each other: each row is one line that names them."""

import pytest

from googlenet import config as config_lib
from googlenet.contradictions import CONTRADICTIONS
from googlenet.errors import UserError

FREE = {
  'optimizer.schedule_free': True,
  'optimizer.schedule': 'constant',
}
BATCH_NORM = {'model.normalization': 'batch', 'eval.batch_norm_batches': 2}
ALLOWED = (
  FREE,
  FREE | BATCH_NORM | {'optimizer.name': 'adamw'},
  {'optimizer.schedule': 'one_cycle', 'optimizer.warmup_steps': 0},
  {'train.early_stopping': 1, 'checkpoint.best_metric': 'eval/loss'},
)
# For each row, in its order: values, and how the line begins and goes on.
REFUSED = (
  (
    {'data.classes': 'classes.txt'},
    "config.data.classes='classes.txt': config.data.source='bundled' has ",
  ),
  (
    {'data.resize': 20},
    'config.data.resize=20: it is smaller than config.data.image_size=28',
  ),
  (
    {'eval.batch_norm_batches': 1},
    "config.eval.batch_norm_batches=1: the network 'tiny' has no batch norm",
  ),
  (
    {'eval.crops': 10, 'eval.flip': True},
    'config.eval.crops=10: crops are views of their own',
  ),
  (
    {'train.microbatches': 3},
    'config.train.batch_size=64: it does not divide into '
    'config.train.microbatches=3 parts',
  ),
  (
    {'optimizer.step_epochs': (2.0, 1.0)},
    'config.optimizer.step_epochs=(2.0, 1.0): they must be in rising order',
  ),
  (
    {'optimizer.schedule': 'one_cycle'},
    'config.optimizer.warmup_steps=100: config.optimizer.schedule=',
  ),
  (
    {'train.early_stopping': 2},
    'config.train.early_stopping=2: it waits for a better '
    'config.checkpoint.best_metric',
  ),
  (
    FREE | {'optimizer.name': 'muon'},
    "config.optimizer.name='muon': with config.optimizer.schedule_free=True",
  ),
  (
    FREE | {'optimizer.schedule': 'cosine'},
    "config.optimizer.schedule='cosine': with "
    'config.optimizer.schedule_free=True the rate does not fall: give constant',
  ),
  (
    FREE | {'optimizer.momentum': 0.0},
    'config.optimizer.momentum=0.0: with config.optimizer.schedule_free=True',
  ),
  (
    FREE | {'optimizer.lookahead_period': 5},
    'config.optimizer.lookahead_period=5: with ',
  ),
  (
    FREE | {'finetune.frozen': ('conv_1',)},
    "config.finetune.frozen=('conv_1',): with ",
  ),
  (FREE | {'train.ema_decay': 0.9}, 'config.train.ema_decay=0.9: with '),
  (
    FREE | BATCH_NORM | {'eval.batch_norm_batches': 0},
    'config.eval.batch_norm_batches=0: with ',
  ),
)


@pytest.mark.parametrize('values', ALLOWED)
def test_what_goes_together_is_taken(config, values):
  config.update_from_flattened_dict(values)
  config_lib.resolve(config)


@pytest.mark.parametrize(
  ('row', 'values', 'line'),
  [(row, *case) for row, case in zip(CONTRADICTIONS, REFUSED, strict=True)],
)
def test_what_does_not_is_one_line(config, row, values, line):
  config.update_from_flattened_dict(values)
  with pytest.raises(UserError) as error:
    config_lib.resolve(config)
  assert str(error.value).startswith(line)
  assert '\n' not in str(error.value)
  assert error.value.field == row[0]
