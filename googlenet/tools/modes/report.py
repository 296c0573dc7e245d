"""--mode=report: writes a page about a run, or several, to its workdir."""

import math
import os
import pathlib
import time

import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.io.compare import differences
from googlenet.io.workdir import check_writable, write_text
from googlenet.runtime.terminal import warn
from googlenet.tools import runs
from googlenet.tools.inference import outputs, predict, trained
from googlenet.tools.report import classes, inside, looks, page, sections
from googlenet.tools.report.page import Section
from googlenet.tools.scoring import scores
from googlenet.tools.scoring.predictions import predict_split

Config = ml_collections.FrozenConfigDict
_NUM_CLASS_MAPS = 12
_REPORT, _COMPARISON = 'report.html', 'comparison.html'


def run(
  config: Config,
  workdir: str,
  started: float,
  others: tuple[tuple[str, Config], ...] = (),
  baseline: tuple[str, Config] | None = None,
  block: str = '',
  image_index: int = 0,
) -> None:
  """Writes report.html, or comparison.html, and overwrites an older one.

  Sections for which the run has no data are left out, and the page says so.

  Args:
    config: of the run; its `data` and `eval` sections may differ.
    workdir: of the run, finished or not.
    started: unused.
    others: workdirs and configs of runs to compare it with; the page is then
      comparison.html, since report.html is that of the run alone.
    baseline: path and config of a config file; the page lists the fields in
      which the run differs from it.
    block: the block whose branches are shown; '' for the first.
    image_index: index in `data.eval_split` of the image whose maps are shown.

  Raises:
    UserError: the run, the block or the image does not exist, or all
      checkpoints of the run are damaged.
  """
  del started
  outputs.check_one_process('report', jax.process_count())
  all_runs = [runs.read(workdir, config)]
  all_runs += [runs.read(other, theirs) for other, theirs in others]
  first = all_runs[0]
  check_writable(pathlib.Path(workdir))
  shown = [_shown(one) for one in all_runs]
  made = [sections.summary(first), sections.curves(all_runs)]
  if others:
    made.append(sections.comparison(shown))
  made += _of_network(first, block, image_index)
  if baseline and baseline[0].endswith('.json'):
    baseline = baseline[0], runs.with_local(baseline[1], baseline[0])
  made.append(sections.config(shown[0], baseline))
  name = os.path.basename(os.path.abspath(workdir))
  stamp = time.strftime('%Y-%m-%d %H:%M', time.localtime())
  text = page.fill(
    'page.html',
    title=f'Report on {name}' + (' beside other runs' if others else ''),
    sections=made,
    footer=f'Written {stamp} from {", ".join(r.workdir for r in all_runs)}.',
  )
  path = pathlib.Path(workdir) / (_COMPARISON if others else _REPORT)
  write_text(path, text)
  print(f'in       {path} ({os.path.getsize(path) / 1e6:.1f} MB)')


def _shown(files: runs.RunFiles) -> runs.RunFiles:
  """Returns a run with the folders and teachers that it was trained with."""
  path = pathlib.Path(files.workdir) / 'config.json'
  return files._replace(config=runs.with_local(files.config, path))


def _of_network(
  files: runs.RunFiles, block: str, image_index: int
) -> list[Section]:
  """Returns the sections that need a checkpoint, or a note on why not."""
  if not files.steps:
    text = 'No checkpoint so far: scores, errors and maps are left out.'
    return [Section('classes', 'Classes', page.note(text))]
  dataset, problem = _load_split(files)
  channels = dataset and pipeline.image_shape(files.config, dataset)[-1]
  one = trained.load_run(files.workdir, files.config, channels)
  block = inside.choose_block(one, block)
  if dataset is None:
    text = f'Scores, errors and maps are left out: {problem}.'
    return [
      Section('classes', 'Classes', page.note(text)),
      inside.filters(one),
    ]
  if not 0 <= image_index < dataset.num_examples:
    raise UserError(
      f'--image_index={image_index}: config.data.eval_split={dataset.split!r} '
      f'has {dataset.num_examples:,} images; allowed is 0 to '
      f'{dataset.num_examples - 1}'
    )
  print(f'{one.path}: step {one.step:,}, {dataset.num_examples:,} images')
  predict.tell_cost(one.views, '--config.eval.flip=False and so on')
  predictions = predict_split(files.config, [one])
  found = scores.compute(predictions.probabilities, predictions.labels)
  if not math.isfinite(found.loss):
    raise UserError(f'{one.path}: the loss of these parameters is {found.loss}')
  wrong = classes.worst_errors(predictions, classes.NUM_ERRORS)
  shown = np.array([image_index, *wrong])
  pixels, labels = predictions.dataset.read(shown)
  names = one.class_names
  captions = [f'Image {image_index}: {names[labels[0]]}.']
  captions += [
    f'Image {place}: is {names[label]}.'
    for place, label in zip(wrong, labels[1:], strict=True)
  ]
  count = 1 + _NUM_CLASS_MAPS
  return [
    classes.classes(found, predictions, names, one.views.count),
    classes.errors(predictions, wrong, pixels[1:], names),
    inside.class_maps(one, pixels[:count], captions[:count]),
    inside.maps(one, pixels[0], image_index, names[labels[0]], block),
    looks.section(one, predictions.dataset, image_index),
    inside.filters(one),
  ]


def _load_split(files: runs.RunFiles) -> tuple[Dataset | None, str]:
  """Returns the evaluation data, or None and why it is not available.

  Raises:
    UserError: it is not available, and the user has changed the run's config.
  """
  try:
    return pipeline.load_split(files.config, 'eval_split'), ''
  except UserError as error:
    path = pathlib.Path(files.workdir) / 'config.json'
    stored = config_lib.load(path)
    stored.finetune.from_workdir = files.config.finetune.from_workdir
    if differences(stored, files.config):
      raise
    warn(f'{error}: scores, errors and maps are left out')
    return None, str(error)
