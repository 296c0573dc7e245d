"""Makes a run from the config: data, network, state, steps.

Errors in the input are found here, before anything is compiled or written.
"""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections

from googlenet import config as config_lib
from googlenet.data import batches, classes, constants, pipeline, sampling
from googlenet.input import colour, image_sizes
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.train import checks, evaluate, finetune, precise_bn
from googlenet.train import step as step_lib
from googlenet.train.optimization import make_optimizer
from googlenet.train.state import TrainState, make_train_state

Config = ml_collections.FrozenConfigDict


class Run(NamedTuple):
  """A training run, made from its config.

  Steps are counted from 1, so `step` is also the number of steps made.

  Attributes:
    config: resolved.
    durations: length of the run in steps.
    train: input pipeline of `data.train_split`.
    evaluation: input pipeline of `data.eval_split`.
    network: the network of `config.model`.
    state: the state before the first step, on every local device.
    train_step: (state, batch, seed, image_size=None) -> (state, metrics).
    eval_step: (params, network_state, batch) -> sums of scores.
    statistics_step: step of precise BN; None: running statistics are used.
    statistics: input pipeline of precise BN.
    lines: console lines about fine-tuning and the schedule.
    soft_targets: `distillation.SoftTargets`; None: without a teacher.
  """

  config: Config
  durations: config_lib.Durations
  train: batches.Pipeline
  evaluation: batches.Pipeline
  network: network_lib.Network
  state: TrainState
  train_step: Any
  eval_step: Any
  statistics_step: Any = None
  statistics: batches.Pipeline | None = None
  lines: tuple[str, ...] = ()
  soft_targets: Any = None

  def indices(self, start: int, stop: int) -> Sequence[sampling.IndexBatch]:
    """Returns the image indices of the steps `start` + 1 to `stop`."""
    dataset = self.train.dataset
    return sampling.train_indices(self.config, dataset, start, stop)

  def batches(self, start: int) -> Generator[tuple[int, batches.Batch]]:
    """Yields (step, batch) from step `start` + 1 to the last; to be closed."""
    indices = self.indices(start, self.durations.num_steps)
    with contextlib.closing(self.train.batches(indices)) as batches:
      yield from enumerate(batches, start=start + 1)

  def image_size(self, step: int) -> int | None:
    """Returns the size by `train.image_sizes`; None: `data.image_size`."""
    sizes = image_sizes.parse_sizes(self.config.train.image_sizes)
    return image_sizes.size_at(sizes, step, self.durations.total_steps)

  @property
  def traced_steps(self) -> range:
    """The steps that `logging.profile_steps` traces."""
    first = checks.WARM_UP_STEPS + 1
    return range(first, first + self.config.logging.profile_steps)

  def epoch(self, step: int) -> float:
    """Returns the number of epochs up to a step, as a fraction."""
    return step / self.durations.steps_per_epoch

  def is_epoch_end(self, step: int) -> bool:
    """Returns whether this step ends an epoch or the run."""
    is_last = step == self.durations.num_steps
    return is_last or step % self.durations.steps_per_epoch == 0

  def ends_epochs(self, step: int, every: int) -> bool:
    """Returns whether something that happens every few epochs is due.

    Args:
      step: last step of an epoch; at the end of the run it is always due.
      every: period in epochs; 0: never due.
    """
    if not every:
      return False
    is_last = step == self.durations.num_steps
    return is_last or step // self.durations.steps_per_epoch % every == 0


def build(config: Config, is_resumed: bool = False) -> Run:
  """Makes all parts of a run; does not compile the network yet.

  Args:
    config: resolved.
    is_resumed: whether the state will be read from a checkpoint of the run, so
      that `finetune.from_workdir` is no longer needed, and mean is settled.

  Raises:
    UserError: the data cannot be read or does not fit the config.
  """
  train = pipeline.load_split(config, 'train_split')
  evaluation = pipeline.load_split(config, 'eval_split')
  if config.train.sampling == 'balanced':  # its labels are read once, here
    train = train._replace(labels=classes.read_labels(train))
  checks.check_shapes(train, evaluation)
  colour.check(config.augment, train.name, train.image_shape[-1])
  durations = config_lib.durations(
    config.train, train.num_examples, jax.device_count()
  )
  config_lib.check_pairs(config, jax.device_count())
  checks.check_profile_steps(config.logging.profile_steps, durations)
  train_pipeline = pipeline.make_pipeline(config, train)
  eval_pipeline = pipeline.make_pipeline(config, evaluation)

  network = network_lib.from_config(config)
  shape = pipeline.image_shape(config, train)
  if not is_resumed:
    checks.check_best_metric(config)
    classes.check_all_trained(config.data.classes, train, evaluation)
    constants.check(config.data, train, shape[-1])
  params, network_state = init_from_numpy(network, shape, config.seed)
  checks.check_image_sizes(config, network, shape[-1])
  optimizer, schedule, lines = make_optimizer(config, durations, params)
  if config.finetune.from_workdir and not is_resumed:
    params, network_state, loaded = finetune.load(
      config.finetune.from_workdir, network, params, network_state, config.model
    )
    lines = (*loaded, *lines)
  run = Run(
    config,
    durations,
    train_pipeline,
    eval_pipeline,
    network,
    make_train_state(params, network_state, optimizer, config.train),
    step_lib.make_train_step(network, optimizer, schedule, config),
    evaluate.make_eval_step(network, config),
    *precise_bn.make_statistics(config, train_pipeline),
    lines,
  )
  if not config.train.teacher:
    return run
  from googlenet.train import distillation  # which few runs need

  return distillation.with_teacher(run)
