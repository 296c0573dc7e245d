"""Whether a checkpoint is of this run: its config, its data, its progress."""

import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

import jax

from googlenet.data.sources import Dataset
from googlenet.data.splits import changed_files
from googlenet.errors import UserError
from googlenet.fields.flag_text import as_text
from googlenet.io.archive import DamagedError
from googlenet.io.compare import NEVER_CHANGES, Changes, trained_with
from googlenet.io.metrics import Progress
from googlenet.io.writer import LogSize
from googlenet.runtime import distributed
from googlenet.train.setup import Run

# Fields on which the size of images that the host gives depends.
_SHAPES_IMAGES = (
  'data.image_size',
  'data.resize',
  'augment.random_resized_crop',
)


def data_of(run: Run) -> dict[str, Any]:
  """Returns what identifies the data of a run, for JSON."""
  found = describe_data(run.train.dataset)
  if identity := run.evaluation.dataset.identity:
    found['evaluation'] = identity.to_json()
  if run.soft_targets:
    found['teacher'] = run.soft_targets.identity
  return found


def describe_data(dataset: Dataset) -> dict[str, Any]:
  """Returns what identifies a training set, for JSON."""
  # Files of the user are the same in another folder.
  identity = dataset.identity
  found = {'name': dataset.name} if identity is None else identity.to_json()
  return {
    **found,
    'split': dataset.split,
    'num_examples': dataset.num_examples,
    'image_shape': list(dataset.image_shape),
    'num_classes': dataset.num_classes,
  }


def check_processes(run: Run) -> None:
  """Checks that all processes of a run have the same data.

  The number of steps and the order of the images depend on them.

  Raises:
    UserError: they differ; every process raises it.
  """
  if jax.process_count() == 1:
    return
  ours = {
    'training': describe_data(run.train.dataset),
    'evaluation': describe_data(run.evaluation.dataset),
    'teacher': {'is': run.soft_targets and run.soft_targets.identity},
  }
  theirs = distributed.on_process_0(lambda: ours)
  words = [
    f'{part}: {_changes(theirs[part], here)}'
    for part, here in ours.items()
    if theirs[part] != here
  ]
  distributed.check_none_differs('; '.join(words))


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
  """Says in words how the data of two processes differ."""
  return changed_files(there, here) or ', '.join(
    f'{name} {there.get(name)!r} there and {value!r} here'
    for name, value in here.items()
    if there.get(name) != value
  )


def check_about(
  path: pathlib.Path,
  about: dict[str, Any],
  config: Any,
  data: dict[str, Any],
) -> Progress:
  """Checks that a checkpoint belongs to this run; returns the progress.

  Raises:
    DamagedError: data, config or progress are missing in the file.
    UserError: the checkpoint belongs to another run.
  """
  try:
    progress = progress_of(about)
    is_whole = LogSize.of(about).bytes >= 0
    changes = trained_with(about, config)
    theirs = about['data']
  except (KeyError, TypeError, AttributeError, IndexError) as error:
    raise DamagedError(path, 'its description of the run is bad') from error
  if not is_whole:
    raise DamagedError(path, 'its description of the run is bad')
  for name in NEVER_CHANGES:
    if name in changes:
      there, here = changes[name]
      raise UserError(
        f'checkpoint {path} is of another run: config.{name} is {there!r} '
        f'there and {here!r} here'
      )
  _check_teacher(path, theirs, data, about['config'])
  _check_data(path, theirs, data, changes)
  return progress


def _check_teacher(
  path: pathlib.Path,
  theirs: Mapping[str, Any],
  data: Mapping[str, Any],
  stored: Mapping[str, Any],
) -> None:
  """Checks that a checkpoint was trained with the same teachers.

  Args:
    path: of the checkpoint.
    theirs: what `data_of` returned when it was written.
    data: what it returns now.
    stored: the config in the checkpoint.

  Raises:
    UserError: it was trained with others, with none, or now there is none.
  """
  if theirs.get('teacher') == data.get('teacher'):
    return
  if 'teacher' not in theirs:
    raise UserError(
      f'checkpoint {path} is of a run without a teacher: leave out '
      'config.train.teacher to continue it, or give another --workdir',
      'train.teacher',
    )
  names = as_text(stored['train']['teacher'])
  what = f'give it with --config.train.teacher={shlex.quote(names)}'
  if 'teacher' in data:
    what = 'config.train.teacher names another network, or one trained further'
  raise UserError(
    f'checkpoint {path} is of a run with the teacher {names}: {what}; only '
    'with the same network can the run be continued',
    'train.teacher',
  )


def _check_data(
  path: pathlib.Path,
  theirs: Mapping[str, Any],
  data: Mapping[str, Any],
  changes: Changes,
) -> None:
  """Checks that a checkpoint was trained on this data.

  Args:
    path: of the checkpoint.
    theirs: what `data_of` returned when it was written.
    data: what it returns now.
    changes: fields that have another value now.

  Raises:
    UserError: it was trained on other data.
  """
  parts = {'': (theirs, data)}
  # Runs from before this was kept, and other sources, have no such part.
  if 'data.eval_split' not in changes and 'evaluation' in theirs:
    parts['evaluation '] = theirs['evaluation'], data.get('evaluation', {})
  for part, (there, here) in parts.items():
    if changed := changed_files(there, here):
      raise UserError(
        f'checkpoint {path} is of a run on other {part}images: {changed}; '
        'restore them, or give another --workdir',
        'data.data_dir',
      )
  for key, value in data.items():
    if key == 'image_shape' and changes.keys() & {*_SHAPES_IMAGES}:
      continue
    if key in ('evaluation', 'teacher'):
      continue
    if theirs.get(key) != value:
      raise UserError(
        f'checkpoint {path} is of a run on other data: {key} was '
        f'{theirs.get(key)!r} and is {value!r}'
      )


def progress_of(about: dict[str, Any]) -> Progress:
  """Reads the progress from a checkpoint.

  Version 0.1.0 called it `course` and kept metrics of single steps; metrics
  since the last record are lost.

  Raises:
    KeyError, TypeError, AttributeError: `about` has another format.
  """
  if 'course' not in about:
    return Progress.from_json(about['progress'])
  kept = ('train', 'evaluated', 'first_step_seconds', 'seconds')
  kept += ('timed_steps', 'timed_seconds')
  return Progress(
    best=about['best'],
    is_epoch_pending=about['is_epoch_pending'],
    **{name: about['course'][name] for name in kept},
  )
