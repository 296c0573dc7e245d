"""Distillation: trained networks give the classes of each training image.

The soft targets of an image are the probabilities that a teacher gives its
classes at `train.teacher_temperature` (Hinton, Vinyals and Dean, 2015, arXiv
1503.02531, section 2); those of several teachers are averaged. A teacher sees
what the student sees, with the same crop, flip and mixture (Beyer et al., 2022,
arXiv 2106.05237, section 3.1), at the teacher's size and normalization.

The loss is in loss.py. Only a run with `train.teacher` imports this file.
"""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.input import mixing
from googlenet.input.augment import augment
from googlenet.input.preprocess import preprocess
from googlenet.io import checkpoint, compare, named, pretrained
from googlenet.io.workdir import differing_class, read_classes, read_object
from googlenet.model import network as network_lib
from googlenet.model.precision import get_policy
from googlenet.runtime.parallel import parallelize, replicated
from googlenet.runtime.terminal import warn
from googlenet.train.setup import Config, Run
from googlenet.train.state import TrainState
from googlenet.train.step import Batch, Metrics, drawn, drawn_from, positions

_FIELD = 'train.teacher'
# Fields that, with the `model` section, say what a network computes with given
# parameters.
_COMPUTES = ('data.image_size', 'data.mean', 'data.std', 'train.precision')

Arrays = tuple[hk.Params, hk.State]


class Teacher(NamedTuple):
  """A trained network.

  Attributes:
    network: made from the config of its run.
    data: the `data` section of that run, with the channels of the network.
    precision: `train.precision` of that run.
    arrays: its parameters and running statistics, as used in evaluation.
    identity: hash of all that decides its outputs, hexadecimal digits.
    line: what the console says of it.
  """

  network: network_lib.Network
  data: ml_collections.FrozenConfigDict
  precision: str
  arrays: Arrays
  identity: str
  line: str

  def logits(
    self, arrays: Arrays, images: jax.Array, shares: jax.Array | None
  ) -> jax.Array:
    """Returns the logits of images as in evaluation: float32 [B, K].

    Args:
      arrays: `self.arrays`, on the device.
      images: uint8 [B, H, W, C], augmented stored pixels.
      shares: `mixing.shares` at the student's size; None: nothing is mixed.
    """
    policy = get_policy(self.precision)
    x = preprocess(images, self.data)
    if shares is not None:
      shares = jax.image.resize(shares, (*x.shape[:3], 1), 'bilinear')
      x = shares * x + (1 - shares) * mixing.neighbours(x)
    params, state = arrays
    params, x = policy.cast_to_compute((params, x))
    outputs, _ = self.network.apply(params, state, None, x, is_training=False)
    return policy.cast_to_output(outputs.logits)


class SoftTargets:
  """The function that adds `soft_targets` to the batches of a run.

  Attributes:
    identity: of each teacher, for the checkpoints of the run.
    lines: console lines about the teachers.
  """

  def __init__(self, config: Config, teachers: Sequence[Teacher]):
    """Puts the teachers on the devices.

    Args:
      config: of the student.
      teachers: one or more.
    """
    self._config, self._teachers = config, tuple(teachers)
    self._arrays = replicated(tuple(teacher.arrays for teacher in teachers))
    self._program = functools.cache(self._make_program)
    self.identity = [teacher.identity for teacher in teachers]
    train = config.train
    self.lines = (
      *(teacher.line for teacher in teachers),
      f'         {train.teacher_weight:g} of the loss, at temperature '
      f'{train.teacher_temperature:g}',
    )

  def __call__(
    self,
    batch: Batch,
    seed: jax.Array,
    step: jax.Array,
    image_size: int | None = None,
    is_local: bool = False,
  ) -> Batch:
    """Returns the batch with `soft_targets`, float32 [D, B, K].

    Args:
      batch: as for a training step.
      seed: uint32 [], of the run.
      step: int32 [], steps made before this one.
      image_size: of the student in this step; None: `data.image_size`.
      is_local: whether only the devices of this process take part.
    """
    # Only where boxes are drawn in pixels of the student does its size matter.
    size = image_size if mixing.is_on(self._config.augment) else None
    names = drawn_from(self._config.augment.flip)
    part = {name: batch[name] for name in names}
    targets = self._program(size, is_local)(self._arrays, part, seed, step)
    return {**batch, 'soft_targets': targets}

  def _make_program(
    self, image_size: int | None, is_local: bool
  ) -> Callable[..., jax.Array]:
    config, num_parts = self._config, self._config.train.microbatches
    size = image_size or config.data.image_size

    def of_part(
      arrays: Sequence[Arrays], batch: Batch, keys: jax.Array
    ) -> jax.Array:
      images = augment(
        batch['image'],
        keys,
        config.augment,
        config.data.mean,
        batch.get('flip'),
      )
      shares = None
      if mixing.is_on(config.augment):
        shares = mixing.shares(size, keys, config.augment)
      found = [
        jax.nn.softmax(
          teacher.logits(its, images, shares) / config.train.teacher_temperature
        )
        for teacher, its in zip(self._teachers, arrays, strict=True)
      ]
      return sum(found) / len(found)

    def soft_targets(
      arrays: Sequence[Arrays], batch: Batch, seed: jax.Array, step: jax.Array
    ) -> jax.Array:
      batch, (keys, _) = drawn(
        batch, positions(batch, is_local), seed, step, config.augment.flip
      )
      if num_parts == 1:
        return of_part(arrays, batch, keys)
      parts = jax.tree.map(
        lambda x: x.reshape(num_parts, -1, *x.shape[1:]), (batch, keys)
      )
      found = jax.lax.map(lambda part: of_part(arrays, *part), parts)
      return found.reshape(-1, found.shape[-1])

    return parallelize(
      soft_targets,
      in_axes=(None, 0, None, None),
      options=self._teachers[0].network.kernels.compiler_options,
      what='soft targets',
      how=config.train.parallel,
      is_local=is_local,
    )


def with_teacher(run: Run) -> Run:
  """Returns a run whose training steps get soft targets from its teachers.

  Raises:
    UserError: a teacher is missing or damaged, or has other classes than the
      run or other channels than its images can have.
  """
  dataset, config = run.train.dataset, run.config
  names = config.train.teacher
  soft_targets = SoftTargets(
    config,
    [
      read(name, config, dataset.class_names, dataset.image_shape[-1])
      for name in names
    ],
  )

  def train_step(
    state: TrainState,
    batch: Batch,
    seed: jax.Array,
    image_size: int | None = None,
  ) -> tuple[TrainState, Metrics]:
    batch = soft_targets(batch, seed, state.step, image_size)
    return run.train_step(state, batch, seed, image_size)

  return run._replace(
    train_step=train_step,
    soft_targets=soft_targets,
    lines=(*soft_targets.lines, *run.lines),
  )


def read(
  name: str, config: Config, class_names: Sequence[str], stored: int
) -> Teacher:
  """Reads a teacher; warns if its training has not ended.

  Args:
    name: folder of its run, or a name, see `named.find`.
    config: of the student.
    class_names: of the student's data.
    stored: channels of the student's images before preprocessing.

  Raises:
    UserError: it is missing or damaged, or does not fit the student.
  """
  folder = pathlib.Path(named.find(os.path.expanduser(name)))
  if not checkpoint.paths(folder):
    raise _refused(name, checkpoint.why_none(folder))
  try:
    theirs = config_lib.load(folder / 'config.json')
    # It runs where the student runs.
    theirs.model.kernels = config.model.kernels
    theirs = config_lib.resolve(theirs)
    network = network_lib.from_config(theirs)
    path, restored = pretrained.read_for(network, folder, theirs)
    names = read_classes(folder, theirs.model.num_classes)
    is_ended = _is_ended(folder, path, restored.step)
  except UserError as error:
    raise _refused(name, f'cannot be used: {error}') from error
  _check_classes(name, names, config.model.num_classes, class_names)
  seen = pretrained.channels_of(network, restored.params)
  if seen != stored and {seen, stored} != {1, 3}:
    raise _refused(
      name,
      f'takes images of {seen} channel(s), into which those of this run, of '
      f'{stored}, cannot be converted',
    )
  arrays = restored.params, restored.network_state
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(arrays)):
    raise _refused(name, f'has parameters that are not finite in {path}')
  for line in compare.edited(folder, path):
    warn(line)
  if not is_ended:
    warn(
      f'config.{_FIELD}: the run in {folder} has not ended; its step '
      f'{restored.step:,} is used, and this run can be continued only while '
      'that stays its newest checkpoint'
    )
  data = ml_collections.ConfigDict(theirs.data.to_dict())
  data.channels = seen
  return Teacher(
    network,
    ml_collections.FrozenConfigDict(data),
    theirs.train.precision,
    arrays,
    _identity(theirs, arrays),
    f'teacher  {path}: step {restored.step:,}; its images: '
    f'{pretrained.describe_images(folder)}',
  )


def _refused(name: str, why: str) -> UserError:
  return UserError(f'config.{_FIELD}={name!r} {why}', _FIELD)


def _is_ended(folder: pathlib.Path, path: pathlib.Path, step: int) -> bool:
  """Whether the run of a checkpoint ended at this step, or is published."""
  if not checkpoint.is_whole(path):
    return True
  try:
    return read_object(folder / 'result.json', 'run').get('step') == step
  except FileNotFoundError:
    return False


def _check_classes(
  name: str, theirs: Sequence[str], count: int, ours: Sequence[str]
) -> None:
  """Raises UserError unless both have the same classes.

  Args:
    name: of the teacher.
    theirs: names of its classes; numbers where it does not know them.
    count: number of classes of the student.
    ours: names of the student's classes that its data has.
  """
  if len(theirs) != count:
    raise _refused(
      name,
      f'tells {len(theirs)} classes apart and this run {count}: give a teacher '
      'of the same classes',
    )
  if found := differing_class(theirs, ours):
    number, their, our = found
    raise _refused(
      name,
      f'calls class {number} {their!r} and the data of this run {our!r}: give '
      'a teacher of the same classes in the same order (or, if only names '
      'differ, rename them in its classes.txt)',
    )


def _identity(config: Config, arrays: Arrays) -> str:
  """Returns a hash of what decides the outputs of a network."""
  values = config_lib.flatten(config.to_dict())
  defaults = config_lib.flatten(config_lib.default_config().to_dict())
  # Without defaults, so that a field of a later version changes no hash.
  described = {
    name: value
    for name, value in values.items()
    if name in _COMPUTES
    or (name.startswith('model.') and value != defaults[name])
  }
  described.pop('model.kernels', None)
  digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
  leaves, _ = jax.tree_util.tree_flatten_with_path(arrays)
  for path, leaf in leaves:
    digest.update(f'{jax.tree_util.keystr(path)} {leaf.shape}'.encode())
    digest.update(np.ascontiguousarray(leaf).tobytes())
  return digest.hexdigest()
