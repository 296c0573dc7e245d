"""Training and evaluation: the outline of a run.

Everything that can be wrong with the input is found by `build`, before
anything is compiled or written.
"""

import errno
import os
import pathlib
import sys
import time
from typing import Any, NamedTuple

import jax
import jmp
import ml_collections
import numpy as np

from googlenet import checkpoint, finetune
from googlenet import config as config_lib
from googlenet import metrics as metrics_lib
from googlenet import network as network_lib
from googlenet import optimizer as optimizer_lib
from googlenet import train_step as step_lib
from googlenet.allocator import release_free_memory
from googlenet.data import batches, sources
from googlenet.errors import UserError
from googlenet.initialization import count_parameters, init_from_numpy
from googlenet.preprocess import num_channels
from googlenet.profiling import Profiler, check_profile_steps
from googlenet.recorder import Recorder

Config = ml_collections.FrozenConfigDict

# A workdir with one of these holds a run.
RUN_FILES = (
  'config.json',
  'metrics.jsonl',
  'checkpoints',
  'tensorboard',
  'profile',
  'result.json',
  'benchmark.json',
)


class Run(NamedTuple):
  """The parts of a training run, made from the config."""

  config: Config
  durations: config_lib.Durations
  train: batches.Feed
  evaluation: batches.Feed
  network: network_lib.Network
  state: step_lib.TrainState
  train_step: Any
  eval_step: Any
  lines: tuple[str, ...] = ()  # to tell of where it starts from


def load_split(config: Config, field: str) -> sources.Dataset:
  """Returns the data set of `data.train_split` or `data.eval_split`.

  Raises:
    UserError: as `load_dataset`; and where classes or channels of the images
      do not fit the config.
  """
  try:
    dataset = sources.load_dataset(config.data, config.data[field])
  except UserError as error:
    text = str(error).replace('split=', f'config.data.{field}=', 1)
    raise UserError(text) from error
  if dataset.num_classes > config.model.num_classes:
    raise UserError(
      f'config.model.num_classes={config.model.num_classes}: {dataset.name} '
      f'has {dataset.num_classes} classes; allowed is at least '
      f'{dataset.num_classes}'
    )
  stored = dataset.image_shape[-1]
  channels = num_channels(config.data, stored)
  if channels != stored and (channels, stored) not in ((1, 3), (3, 1)):
    raise UserError(
      f'config.data.channels={channels}: {dataset.name} has images of {stored} '
      f'channels, which can be turned into nothing else; give 0'
    )
  for name in ('mean', 'std'):
    value = tuple(config.data[name])
    if len(value) not in (1, channels):
      raise UserError(
        f'config.data.{name}={value} has {len(value)} numbers for images of '
        f'{channels} channel(s): give 1 or {channels}'
      )
  return dataset


def make_feed(config: Config, dataset: sources.Dataset) -> batches.Feed:
  """Returns the data set as batches on the devices."""
  return batches.make_feed(
    dataset,
    config.model.num_classes,
    config.data.on_device_mb,
    step_lib.replicated,
    step_lib.PMAP_AXIS,
  )


def image_shape(
  config: Config, dataset: sources.Dataset
) -> tuple[int, int, int]:
  """Returns (H, W, C) of what the network sees of a data set."""
  channels = num_channels(config.data, dataset.image_shape[-1])
  return (config.data.image_size, config.data.image_size, channels)


def make_network(config: Config) -> network_lib.Network:
  """Returns the network of a config, on the kernels that suit its precision."""
  policy = jmp.get_policy(config.train.precision)
  return network_lib.make_network(
    config.model, policy.compute_dtype, config.finetune.frozen
  )


def build(config: Config) -> Run:
  """Makes all parts of a run; compiles nothing of the network yet.

  Raises:
    UserError: the data, or data and config together, are not usable.
  """
  train = load_split(config, 'train_split')
  evaluation = load_split(config, 'eval_split')
  if train.image_shape != evaluation.image_shape:
    raise UserError(
      f'config.data.train_split={train.split!r} has images of '
      f'{train.image_shape}, config.data.eval_split={evaluation.split!r} of '
      f'{evaluation.image_shape}: they must be equal'
    )
  durations = config_lib.durations(
    config.train, train.num_examples, jax.device_count()
  )
  check_profile_steps(config.logging.profile_steps, durations)
  train_feed = make_feed(config, train)
  eval_feed = make_feed(config, evaluation)

  network = make_network(config)
  params, network_state = init_from_numpy(
    network, image_shape(config, train), config.seed
  )
  schedule = optimizer_lib.make_schedule(
    config.optimizer, durations.steps_per_epoch, durations.total_steps
  )
  optimizer = optimizer_lib.make_optimizer(config.optimizer, schedule)
  params, network_state, optimizer, lines = finetune.apply(
    config.finetune, network, params, network_state, optimizer
  )
  return Run(
    config,
    durations,
    train_feed,
    eval_feed,
    network,
    step_lib.make_train_state(params, network_state, optimizer),
    step_lib.make_train_step(network, optimizer, schedule, config),
    step_lib.make_eval_step(network, config),
    lines,
  )


def train_and_evaluate(
  config: Config,
  workdir: str | os.PathLike[str],
  started: float | None = None,
) -> dict[str, Any]:
  """Trains the network of a config and scores it.

  Args:
    config: resolved.
    workdir: a folder that holds no run yet; made by the first record.
    started: `time.time()` at the start of the program, to tell how long the
      first step took from there.

  Returns:
    What result.json holds.

  Raises:
    UserError: bad input (nothing was written), or a loss that is not finite.
  """
  check_workdir(workdir)
  started = time.time() if started is None else started
  run = build(config)
  writer = metrics_lib.Writer(
    workdir, config_lib.to_json(config), config.logging.tensorboard
  )
  screen = metrics_lib.Screen(sys.stdout, run.durations.num_steps)
  for line in describe(run, workdir):
    screen.line(line)
  recorder = Recorder(config, run.durations, writer, screen, started)
  profiler = Profiler(
    config,
    run.network,
    run.train_step,
    image_shape(config, run.train.dataset)[-1],
    workdir,
    recorder,
    screen,
  )
  try:
    result = _train(run, workdir, recorder, profiler)
    writer.write_result(result)
  finally:
    profiler.close()
    screen.close()
    writer.close()
  for line in _describe_result(result, workdir):
    screen.line(line)
  return result


def _train(
  run: Run,
  workdir: str | os.PathLike[str],
  recorder: Recorder,
  profiler: Profiler,
) -> dict[str, Any]:
  config, num_steps = run.config, run.durations.num_steps
  steps_per_epoch = run.durations.steps_per_epoch
  state = run.state
  indices = batches.train_indices(
    config.seed,
    run.train.dataset.num_examples,
    config.train.batch_size,
    0,
    num_steps,
  )
  seed = step_lib.replicated(np.uint32(config.seed))
  train_batches = run.train.batches(indices)
  for step, batch in enumerate(train_batches, start=1):
    state, metrics = profiler.train_step(step, state, batch, seed)
    recorder.after_step(step, metrics)
    if step == 1:
      # What the first step leaves in pieces would make the second take as much
      # memory again.
      release_free_memory()
    epoch, rest = divmod(step, steps_per_epoch)
    is_last = step == num_steps
    if rest and not is_last:
      continue
    recorder.record(step)
    if is_last or epoch % config.eval.every_epochs == 0:
      evaluated = evaluate(
        run.eval_step,
        state.params,
        state.network_state,
        run.evaluation,
        config.eval.batch_size,
      )
      # The loss of the last step was that before its update.
      metrics_lib.check_finite(step, 'eval/loss', evaluated['loss'])
      recorder.after_evaluation(step, evaluated)
    recorder.after_epoch(step)
    if is_last or epoch % config.checkpoint.every_epochs == 0:
      save(workdir, step, state)
    recorder.restart_clock()
  return {
    **recorder.result(num_steps),
    'parameters': count_parameters(state.params),
    'kernels': run.network.kernels.name,
  }


def evaluate(
  eval_step: Any,
  params: Any,
  network_state: Any,
  feed: batches.Feed,
  batch_size: int,
) -> dict[str, float]:
  """Scores parameters on every example of a feed, each counted once.

  Args:
    eval_step: made by `train_step.make_eval_step`.
    params: on every local device, as `train_step.replicated` puts them.
    network_state: likewise.
    feed: the examples.
    batch_size: images a step, over all devices.

  Returns:
    `loss` (mean cross-entropy), `accuracy`, `top_5` and `count`.
  """
  sums, in_flight = [], metrics_lib.steps_in_flight()
  for batch in batches.eval_batches(feed, batch_size):
    sums.append(eval_step(params, network_state, batch))
    if len(sums) > in_flight:
      jax.block_until_ready(sums[-1 - in_flight])
  totals = {
    # float64: a float32 sum of counts is exact up to 2**24 examples only.
    key: float(np.sum([np.float64(part[key]) for part in jax.device_get(sums)]))
    for key in sums[0]
  }
  count = totals['count']
  return {
    'loss': totals['loss'] / count,
    'accuracy': totals['top_1'] / count,
    'top_5': totals['top_5'] / count,
    'count': int(count),
  }


def save(
  workdir: str | os.PathLike[str], step: int, state: step_lib.TrainState
) -> None:
  """Writes the parameters of a state; process 0 alone does.

  Raises:
    NonFiniteError: a parameter is; what was saved before is kept.
  """
  params, network_state = jax.device_get((state.params, state.network_state))
  for module, leaves in params.items():
    for name, leaf in leaves.items():
      if not np.isfinite(leaf).all():
        raise metrics_lib.NonFiniteError(step, f'{module}/{name}', np.nan)
  if jax.process_index() == 0:
    checkpoint.save(workdir, step, params, network_state)


def check_workdir(workdir: str | os.PathLike[str]) -> None:
  """Checks that a run can be written there, and leaves nothing behind.

  Raises:
    UserError: it holds a run already, or cannot be made.
  """
  path = pathlib.Path(workdir)
  try:
    made = [p for p in (path, *path.parents) if not p.exists()]
    for name in RUN_FILES:
      if (path / name).exists():
        raise UserError(metrics_lib.holds_a_run(path, name))
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
      folder.rmdir()
    if not made and not os.access(path, os.W_OK | os.X_OK):
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
  except OSError as error:
    raise UserError(
      f'--workdir={workdir} cannot be made or written to '
      f'({error.strerror}): give another folder'
    ) from error


def describe(run: Run, workdir: str | os.PathLike[str]) -> list[str]:
  """Returns the lines that say what a run works on."""
  config, durations = run.config, run.durations
  train, evaluation = run.train.dataset, run.evaluation.dataset
  shape = 'x'.join(str(side) for side in train.image_shape)
  size, _, channels = image_shape(config, train)
  optimizer = config.optimizer
  devices = jax.local_devices()
  where = 'on the device' if run.train.on_device else 'streamed'
  stops = (
    f', stops after {durations.num_steps:,}'
    if durations.num_steps < durations.total_steps
    else ''
  )
  return [
    f'network  {config.model.variant}, {size}x{size}x{channels} '
    f'-> {config.model.num_classes} classes, '
    f'{count_parameters(run.state.params):,} parameters',
    f'devices  {jax.device_count()} x {devices[0].device_kind} '
    f'({jax.default_backend()}), {jax.process_count()} process(es), '
    f'kernels {run.network.kernels.name}, {config.train.precision}',
    f'data     {train.name} ({config.data.source}): {train.num_examples:,} '
    f'{train.split} and {evaluation.num_examples:,} {evaluation.split} '
    f'images, {shape}, {where}',
    f'training {config.train.epochs} epochs x {durations.steps_per_epoch:,} '
    f'steps of {config.train.batch_size} images{stops}; {optimizer.name}, '
    f'learning rate {optimizer.learning_rate:g}, {optimizer.schedule}',
    *run.lines,
    f'workdir  {workdir}',
  ]


def _describe_result(
  result: dict[str, Any], workdir: str | os.PathLike[str]
) -> list[str]:
  minutes, seconds = divmod(round(result['seconds']), 60)
  return [
    f'result   eval accuracy {result["eval/accuracy"]:.4f}, loss '
    f'{result["eval/loss"]:.4f} on {result["eval/count"]:,} images after '
    f'{result["step"]:,} steps and {minutes} min {seconds:02d} s',
    f'in       {workdir}',
  ]
