"""--mode=evaluate: scores checkpoints of one or several workdirs."""

import json
import math
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections

from googlenet.data import pipeline, sources
from googlenet.errors import UserError, did_you_mean
from googlenet.io import pretrained
from googlenet.io.workdir import differing_class, read_classes
from googlenet.runtime.terminal import warn
from googlenet.tools.inference import outputs, predict, trained
from googlenet.tools.scoring import (
  averaging,
  calibration,
  robustness,
  score_table,
  scores,
)
from googlenet.tools.scoring.predictions import (
  predict_split,
  warn_of_training_images,
  with_statistics,
)

Config = ml_collections.FrozenConfigDict
_AVERAGES = ('predictions', 'weights')


def run(
  config: Config,
  workdir: str,
  started: float,
  others: tuple[tuple[str, Config], ...] = (),
  checkpoint: str = 'last',
  average: str = 'predictions',
  corruptions: str = '',
  seed: int = 0,
  calibrate: str = '',
  temperature: float = 1.0,
  output: str = '',
) -> None:
  """Prints scores on `data.eval_split`: overall, by class, calibration.

  Args:
    config: of the run; its `data` and `eval` sections may differ.
    workdir: of a trained run; nothing is written there.
    started: unused.
    others: workdirs and configs of further runs, averaged with the first.
    checkpoint: which checkpoint of each run, see `pretrained.select`.
    average: for several checkpoints, whether their 'predictions' or their
      'weights' are averaged.
    corruptions: of images that are scored too, see `robustness.kinds_of`; '':
      none.
    seed: of the corruptions.
    calibrate: a split to fit a temperature on; '': none.
    temperature: divides logits, see `predict.with_temperature`.
    output: a new file for the scores as JSON; '' for none.

  Raises:
    UserError: a checkpoint is missing, damaged or belongs to another network;
      the runs do not read the same images, or do not have the same classes;
      weights of different networks cannot be averaged; no temperature fits; or
      the output exists already.
  """
  del started
  kinds = robustness.kinds_of(corruptions) if corruptions else ()
  _check_flags(average, calibrate, temperature, output)
  if kinds:
    robustness.check(config)
  for other in others:
    _check_same_images(config, workdir, *other)
    _check_same_classes(config.model.num_classes, workdir, other[0])
    if not jax.process_index():
      _tell_views(config, workdir, *other)
  fitted_on = calibration.check_split(config, calibrate) if calibrate else None
  dataset = pipeline.load_split(config, 'eval_split')
  channels = pipeline.image_shape(config, dataset)[-1]
  members = _load([(workdir, config), *others], channels, checkpoint)
  if not jax.process_index():
    warn_of_training_images(config, dataset, [one.path for one in members])
  networks = members
  if average == 'weights':
    networks = [averaging.average_weights(members)]
  networks = [with_statistics(network) for network in networks]
  predictions = predict_split(config, networks)
  probabilities = predict.with_temperature(
    predictions.probabilities, temperature
  )
  found = scores.compute(probabilities, predictions.labels)
  if not math.isfinite(found.loss):
    paths = ' or '.join(str(member.path) for member in members)
    raise UserError(f'{paths}: the loss of these parameters is {found.loss}')
  calibrated = fitted_on and calibration.calibrated(
    predict_split(fitted_on, networks), predictions, found
  )
  cells = kinds and robustness.evaluate(
    config, networks, kinds, seed, temperature
  )
  if jax.process_index():
    return
  views = predict.views_of(config.eval)
  class_names = members[0].class_names
  for member in members:
    print(f'{member.path}: step {member.step:,}')
  print(_first_line(found, dataset, views, len(members), average, temperature))
  print('\n'.join(score_table.lines(found, class_names)))
  result = {
    **_about(config, dataset, members, average, temperature),
    **scores.to_dict(found, class_names),
  }
  if calibrated:
    print('', *calibration.lines(calibrated), sep='\n')
    result['calibration'] = calibration.to_dict(calibrated)
  if cells:
    print('', *robustness.lines(cells, found.accuracy), sep='\n')
    result['corruptions'] = robustness.to_dict(cells, found.accuracy, seed)
  if output:
    outputs.check_new(output)  # again, since the evaluation took a while
    with outputs.written_aside(output, 'w') as file:
      file.write(json.dumps(result, allow_nan=False) + '\n')
    print(f'in       {output}')


def _check_flags(
  average: str, calibrate: str, temperature: float, output: str
) -> None:
  """Raises UserError if flags are wrong, or the output exists already."""
  if average not in _AVERAGES:
    raise UserError(
      f'--average={average} is not allowed{did_you_mean(average, _AVERAGES)}: '
      f'it takes one of {", ".join(_AVERAGES)}'
    )
  if output:
    outputs.check_new(output)
  predict.check_temperature(temperature)
  if calibrate and temperature != 1:
    raise UserError(
      f'--calibrate finds the temperature that --temperature={temperature:g} '
      'gives: leave out one of them'
    )


def _load(
  runs: Sequence[tuple[str, Config]], channels: int, checkpoint: str
) -> list[trained.Trained]:
  """Loads the chosen checkpoints of each run."""
  paths = [pretrained.select(workdir, checkpoint) for workdir, _ in runs]
  return [
    trained.load_run(workdir, config, channels, path)
    for (workdir, config), chosen in zip(runs, paths, strict=True)
    for path in chosen
  ]


def _about(
  config: Config,
  dataset: sources.Dataset,
  members: Sequence[trained.Trained],
  average: str,
  temperature: float,
) -> dict[str, Any]:
  """Returns what the scores are of, for the file."""
  return {
    'dataset': dataset.name,
    'split': dataset.split,
    'checkpoints': [
      {'path': str(member.path), 'step': member.step} for member in members
    ],
    'average': average if len(members) > 1 else None,
    'crops': config.eval.crops,
    'views': predict.views_of(config.eval).count,
    'temperature': temperature,
  }


def _first_line(
  found: scores.Scores,
  dataset: sources.Dataset,
  views: predict.Views,
  num_members: int,
  average: str,
  temperature: float,
) -> str:
  """Returns the scores over all images, and how they were predicted."""
  kind = 'crops' if views.crops > 1 else 'views'
  of = [f'{views.count} {kind}' if views.count > 1 else '1 view']
  if num_members > 1:
    what = 'networks' if average == 'predictions' else 'weights'
    of += [f'{num_members} {what} averaged']
  if temperature != 1:
    of += [f'temperature {temperature:g}']
  return (
    f'{dataset.name} {dataset.split}: accuracy {found.accuracy:.4f} '
    f'+- {score_table.half_width(found.accuracy, found.count):.4f} (95 %), '
    f'top-5 {found.top_5:.4f}, loss {found.loss:.4f} on '
    f'{found.count:,} images' + ''.join(f', {text}' for text in of)
  )


def _check_same_images(
  config: Config, workdir: str, other_workdir: str, other: Config
) -> None:
  # These may differ: each network has its own, or images do not depend on them.
  own = (
    *('mean', 'std', 'train_split', 'per_class', 'classes', 'on_bad_image'),
    *('on_device_mb', 'workers'),
  )
  pairs = [
    (f'data.{name}', config.data[name], other.data[name])
    for name in config.data
    if name not in own
  ]
  pairs.append(
    ('model.num_classes', config.model.num_classes, other.model.num_classes)
  )
  for name, value, other_value in pairs:
    if value != other_value:
      raise UserError(
        f'--workdir: config.{name} is {value!r} in {workdir} and '
        f'{other_value!r} in {other_workdir}, but averaged networks must see '
        f'the same images: give --config.{name}=, or leave out one workdir'
      )


def _tell_views(
  config: Config, workdir: str, other_workdir: str, other: Config
) -> None:
  """Warns if a run has other views than the first, whose views all get."""
  for name in ('flip', 'shift', 'crops'):
    if config.eval[name] != other.eval[name]:
      warn(
        f'config.eval.{name} is {config.eval[name]!r} in {workdir} and '
        f'{other.eval[name]!r} in {other_workdir}: that of the first counts '
        f'for all; --config.eval.{name}= chooses'
      )


def _check_same_classes(count: int, workdir: str, other_workdir: str) -> None:
  """Checks that outputs of two networks are of the same classes.

  Raises:
    UserError: a class of one is another class, or in another place, in the
      other; or a classes.txt cannot be read.
  """
  names = [read_classes(folder, count) for folder in (workdir, other_workdir)]
  if found := differing_class(*names):
    number, name, other = found
    raise UserError(
      f'--workdir: class {number} is {name!r} in {workdir} and {other!r} in '
      f'{other_workdir}, but averaged networks must have the same classes in '
      'the same order: leave out one workdir (or, if only names differ, rename '
      'them in a classes.txt)'
    )
