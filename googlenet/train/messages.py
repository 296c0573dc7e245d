"""Texts of the console lines that a run prints."""

import math
import os
import platform
from typing import Any

import jax
import jax.numpy as jnp

from googlenet.data.sources import Dataset
from googlenet.data.splits import count_classes, some, trained_on
from googlenet.input.preprocess import num_channels
from googlenet.io.metrics import Progress
from googlenet.kernels import onednn
from googlenet.model import ablations, graph
from googlenet.model.initialization import count_parameters
from googlenet.model.precision import get_policy
from googlenet.runtime import backend
from googlenet.runtime.terminal import rounded
from googlenet.train.resume import Start
from googlenet.train.setup import Config, Run

# Against the kernels 'xla', by the set that 'auto' chooses: seconds of a
# processor that a layer takes longer to compile, and that 1e9 multiply-adds
# take less. Measured with configs/fmnist96.py (docs/performance.md).
_AGAINST_XLA = {'onednn': (0.24, 0.042), 'cpu': (0.6, 0.022)}


def describe(
  run: Run, workdir: str | os.PathLike[str], is_new: bool = True
) -> list[str]:
  """Returns the lines that describe network, devices, data and training.

  Args:
    run: the run.
    workdir: its folder.
    is_new: False if an earlier run is continued, which keeps its kernels.
  """
  config, durations = run.config, run.durations
  train, evaluation = run.train.dataset, run.evaluation.dataset
  shape = 'x'.join(str(side) for side in train.image_shape)
  size = config.data.image_size
  channels = num_channels(config.data, train.image_shape[-1])
  optimizer = config.optimizer
  devices = jax.local_devices()
  settings = backend.in_force(os.environ)
  where = 'on the device' if run.train.on_device else 'streamed'
  stops = (
    f', stops after {durations.num_steps:,}'
    if durations.num_steps < durations.total_steps
    else ''
  )
  turns = ', classes in turn' if config.train.sampling == 'balanced' else ''
  return [
    f'network  {ablations.describe(config.model)}, {size}x{size}x{channels} '
    f'-> {config.model.num_classes} classes, '
    f'{count_parameters(run.state.params):,} parameters',
    f'devices  {jax.device_count()} x {devices[0].device_kind} '
    f'({jax.default_backend()}), {jax.process_count()} process(es), '
    f'kernels {run.network.kernels.name}, {config.train.precision}',
    *([f'settings {settings}'] if settings else []),
    f'data     {train.name} ({config.data.source}): {train.num_examples:,} '
    f'{train.split} and {evaluation.num_examples:,} {evaluation.split} '
    f'images, {shape}, {where}',
    *_about_files(train, evaluation),
    f'training {config.train.epochs} epochs x {durations.steps_per_epoch:,} '
    f'steps of {config.train.batch_size} images{turns}{stops}; '
    f'{optimizer.name}, '
    f'learning rate {optimizer.learning_rate:g}, {optimizer.schedule}',
    *run.lines,
    *_unused_classes(config.model.num_classes, train),
    *(short_run(run) if is_new else []),
    *(slow_cpu(run) if is_new else []),
    f'workdir  {workdir}',
  ]


def short_run(run: Run) -> list[str]:
  """Returns a line if other kernels would end so few steps sooner, or none."""
  config = run.config
  cost = _AGAINST_XLA.get(run.network.kernels.name)
  if config.model.kernels != 'auto' or not cost:
    return []
  size = config.data.image_size
  channels = num_channels(config.data, run.train.dataset.image_shape[-1])
  layers = graph.graph(run.network.architecture, (size, size, channels))
  works = [layer.multiply_adds for layer in layers if layer.multiply_adds]
  # A step takes three times the work of the network: two for the gradients.
  step = 3 * config.train.batch_size * sum(works) / 1e9
  most = int(cost[0] * len(works) / (cost[1] * step))
  if run.durations.num_steps > most:
    return []
  return [
    f'hint     up to {most:,} steps are done sooner with '
    '--config.model.kernels=xla, which compiles faster and computes slower'
  ]


def slow_cpu(run: Run) -> list[str]:
  """Returns lines on what trains faster on this CPU, or none."""
  config = run.config
  kernels = run.network.kernels.name
  if config.model.kernels != 'auto' or kernels not in ('cpu', 'onednn'):
    return []
  lines = []
  is_old = kernels == 'cpu' and _is_x86() and jax.__version_info__ < (0, 12)
  if is_old:
    lines.append(
      f'hint     JAX {jax.__version__} cannot call oneDNN; Python 3.12 or '
      'newer has JAX 0.12, which can, and trains up to 2.5 times as fast'
    )
  dtype = jnp.dtype(get_policy(config.train.precision).compute_dtype)
  if dtype == jnp.bfloat16 and (
    is_old or onednn.dtype_of_calls(dtype) == 'f32'
  ):
    lines.append(
      'hint     bfloat16 trains slower than float32 on this processor with JAX '
      f'{jax.__version__}: --config.train.precision=float32 is faster'
    )
  return lines


def _is_x86() -> bool:
  return platform.machine().lower() in ('x86_64', 'amd64')


def _unused_classes(num_classes: int, train: Dataset) -> list[str]:
  """Returns a line if own images have fewer classes than the network."""
  if not train.identity or train.num_classes >= num_classes:
    return []
  return [
    f'hint     {train.name} has {train.num_classes} classes, the network '
    f'{num_classes}: --config.model.num_classes=0 takes as many as the data has'
  ]


def _about_files(train: Dataset, evaluation: Dataset) -> list[str]:
  """Returns lines about the user's own files: left out, images by class."""
  notes = dict.fromkeys((*train.notes, *evaluation.notes))
  lines = [f'         {note}' for note in notes]
  if train.split == evaluation.split:
    lines.append('         evaluated on the images that it is trained on')
  elif told := trained_on(
    evaluation.parts,
    f'config.data.eval_split={evaluation.split!r}',
    train.parts,
    train.split,
  ):
    lines.append(f'warning  {told}')
  if train.identity:
    found, tested = (
      count_classes(dataset.labels, dataset.class_names)
      for dataset in (train, evaluation)
    )
    counts = [f'{name} {found[name]:,} + {tested[name]:,}' for name in found]
    lines.append(f'classes  {some(counts)}')
  return lines


def epoch_ended(
  run: Run, step: int, progress: Progress, is_evaluated: bool, seconds: float
) -> str:
  """Returns the line that is printed at the end of an epoch."""
  train = progress.train
  text = (
    f'epoch {run.epoch(step):.3g}/{run.config.train.epochs}  '
    f'train loss {train.get("loss", math.nan):.4f} '
    f'accuracy {train.get("accuracy", math.nan):.4f}'
  )
  if is_evaluated:
    text += (
      f'  eval loss {progress.evaluated["loss"]:.4f} '
      f'accuracy {progress.evaluated["accuracy"]:.4f}'
    )
  return f'{text}  {seconds:.0f} s'


def resumed(start: Start) -> str:
  """Returns the line that says from which step a run continues."""
  if not start.path:
    return 'resumed  from step 0: the run ended before its first checkpoint'
  changes = f'; {start.changes}' if start.changes else ''
  return f'resumed  after step {start.step:,}, from {start.path}{changes}'


def finished(
  result: dict[str, Any], workdir: str | os.PathLike[str], config: Config
) -> str:
  """Returns the line for a run that was already finished."""
  train = config.train
  limits, early = [], ''
  if result.get('ended_early'):
    limits.append('a larger --config.train.early_stopping (0: off)')
    early = f', ended early ({result["ended_early"]})'
  if train.max_steps and result.get('step', 0) >= train.max_steps:
    limits.append('a larger --config.train.max_steps')
  if not limits or result.get('epoch', 0) >= train.epochs:
    limits.append('more --config.train.epochs')
  return (
    f'--workdir={workdir} holds a finished run of {result.get("step", "?")} '
    f'steps{early}, eval accuracy {rounded(result.get("eval/accuracy"))}: '
    f'nothing is left to do (give {" and ".join(limits)} with '
    '--allow_config_change to train further, or another folder)'
  )


def ended_early(run: Run, step: int, progress: Progress) -> dict[str, str]:
  """Returns what result.json says of early stopping, if that ended the run."""
  patience = run.config.train.early_stopping
  if not progress.ends_early(step, patience) or progress.best is None:
    return {}
  count, best = len(progress.since_best), progress.best
  return {
    'ended_early': f'no {run.config.checkpoint.best_metric} better than '
    f'{best["value"]:.4f} of step {best["step"]:,} in {count} evaluation'
    f'{"s" if count > 1 else ""}'
  }


def describe_result(
  result: dict[str, Any], workdir: str | os.PathLike[str]
) -> list[str]:
  """Returns the lines that show the result of a run."""
  minutes, seconds = divmod(round(result['seconds']), 60)
  early = result.get('ended_early')
  return [
    f'result   eval accuracy {result["eval/accuracy"]:.4f}, loss '
    f'{result["eval/loss"]:.4f} on {result["eval/count"]:,} images after '
    f'{result["step"]:,} steps and {minutes} min {seconds:02d} s',
    *([f'         ended early: {early}'] if early else []),
    f'in       {workdir}',
  ]
