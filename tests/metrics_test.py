"""Metrics on their way from the device to lines and files."""

import json
import math

import jax.numpy as jnp
import pytest
from tensorboardX.proto import event_pb2

from googlenet.errors import UserError
from googlenet.io import metrics as metrics_lib
from googlenet.io.checkpoint import MAX_ABOUT_BYTES
from googlenet.io.writer import Writer


def step_metrics(loss):
  return {
    'loss': jnp.float32(loss),
    'accuracy': jnp.float32(0.5),
    'grad_norm': jnp.float32(1),
  }


@pytest.mark.parametrize(
  ('in_flight', 'expected'),
  [(0, [1, 2, 3, 4, 5, 6]), (2, [0, 0, 1, 2, 3, 4])],
)
def test_steps_are_fetched_in_order_and_once(in_flight, expected):
  steps = metrics_lib.StepMetrics(in_flight)
  finished = [steps.push(step, step_metrics(step)) for step in range(1, 7)]
  assert finished == expected
  assert [r['loss'] for r in steps.fetch(4)] == [1, 2, 3, 4]
  assert [r['loss'] for r in steps.fetch(6)] == [5, 6]
  assert steps.fetch(6) == []


def test_a_mean_leaves_out_skipped_steps():
  mean = metrics_lib.Mean()
  assert mean.steps == 0
  for loss, rate in ((1.0, 0.1), (float('nan'), 0.2), (4.0, 0.3)):
    mean.add({'loss': loss, 'accuracy': 0.5, 'learning_rate': rate})
  assert mean.value() == {'accuracy': 0.5, 'learning_rate': 0.3, 'loss': 2.5}
  only = metrics_lib.Mean()
  only.add({'loss': float('nan'), 'accuracy': 0.5, 'learning_rate': 0.2})
  assert only.value() == {'learning_rate': 0.2}
  assert only.steps == 1


@pytest.mark.parametrize('loss', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_names_its_step(loss):
  steps = metrics_lib.StepMetrics(in_flight=2)
  for step, value in enumerate([1.0, 2.0, loss, loss], start=1):
    steps.push(step, step_metrics(value))
  with pytest.raises(
    metrics_lib.NonFiniteError, match=f'loss is {loss} at step 3'
  ):
    steps.fetch(4)


def test_the_first_step_may_fail_for_its_images():
  words = [str(metrics_lib.NonFiniteError(n, 'loss', math.nan)) for n in (1, 2)]
  assert ['config.data.std' in text for text in words] == [True, False]
  assert all('config.optimizer.learning_rate' in text for text in words)


def test_nothing_is_written_before_the_first_record(tmp_path):
  workdir = tmp_path / 'run'
  writer = Writer(workdir, '{}', ('a', 'b'), tensorboard=True)
  assert not workdir.exists()
  writer.write(2, 0.5, {'train/loss': 1.25})
  writer.write(4, 1.0, {'train/loss': 0.75, 'eval/accuracy': 0.5})
  writer.write_result({'step': 4})
  writer.close()
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {'step': 2, 'epoch': 0.5, 'train/loss': 1.25},
    {'step': 4, 'epoch': 1.0, 'train/loss': 0.75, 'eval/accuracy': 0.5},
  ]
  assert json.loads((workdir / 'result.json').read_text()) == {'step': 4}
  assert read_scalars(workdir / 'tensorboard') == [
    (2, 'train/loss', 1.25),
    (4, 'train/loss', 0.75),
    (4, 'eval/accuracy', 0.5),
  ]


def read_scalars(folder):
  """Reads event files by their format: length, CRC, record, CRC."""
  (path,) = folder.glob('*tfevents*')
  data, scalars = path.read_bytes(), []
  while data:
    length = int.from_bytes(data[:8], 'little')
    event = event_pb2.Event.FromString(data[12 : 12 + length])
    scalars += [
      (event.step, v.tag, v.simple_value) for v in event.summary.value
    ]
    data = data[16 + length :]
  return scalars


def test_of_two_runs_started_at_once_one_gets_the_folder(tmp_path):
  writers = [Writer(tmp_path, f'{{"seed": {i}}}', (), False) for i in range(2)]
  writers[0].write(1, 0.1, {'train/loss': 1.0})
  with pytest.raises(UserError, match='is in use by another process'):
    writers[1].write(1, 0.1, {'train/loss': 2.0})
  for writer in writers:
    writer.close()
  assert (tmp_path / 'config.json').read_text() == '{"seed": 0}'
  assert '1.0' in (tmp_path / 'metrics.jsonl').read_text()


def test_a_config_that_no_checkpoint_can_hold_is_refused(tmp_path):
  """Before anything is written, which could not be read back."""
  with pytest.raises(UserError, match='shorten the fields'):
    Writer(tmp_path, 'x' * (MAX_ABOUT_BYTES // 4 + 1), (), True)
  names = [f'{k} {"x" * 60}' for k in range(55_000)]
  with pytest.raises(UserError, match='has 55,000 classes, .* shorter names'):
    Writer(tmp_path, '{}', names, True)
  Writer(tmp_path, '{}', [f'class {k}' for k in range(55_000)], True)
  assert not list(tmp_path.iterdir())
