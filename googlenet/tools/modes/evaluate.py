"""--mode=evaluate: scores checkpoints of one or several workdirs."""

import json
import math

import jax
import ml_collections

from googlenet.data import pipeline
from googlenet.errors import UserError, did_you_mean
from googlenet.io import pretrained
from googlenet.tools.inference import outputs, predict, trained
from googlenet.tools.scoring import averaging, score_table, scores
from googlenet.tools.scoring.predictions import predict_split, with_statistics

Config = ml_collections.FrozenConfigDict
_AVERAGES = ('predictions', 'weights')


def run(
  config: Config,
  workdir: str,
  started: float,
  others: tuple[tuple[str, Config], ...] = (),
  checkpoint: str = 'last',
  average: str = 'predictions',
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
    output: a new file for the scores as JSON; '' for none.

  Raises:
    UserError: a checkpoint is missing, damaged or belongs to another network;
      the runs do not read the same images; weights of different networks
      cannot be averaged; or the output exists already.
  """
  del started
  if average not in _AVERAGES:
    raise UserError(
      f'--average={average} is not allowed{did_you_mean(average, _AVERAGES)}: '
      f'it takes one of {", ".join(_AVERAGES)}'
    )
  if output:
    outputs.check_new(output)
  for other in others:
    _check_same_images(config, workdir, *other)
  runs = [(workdir, config), *others]
  paths = [pretrained.select(folder, checkpoint) for folder, _ in runs]
  dataset = pipeline.load_split(config, 'eval_split')
  channels = pipeline.image_shape(config, dataset)[-1]
  members = [
    trained.load_run(folder, member_config, channels, path)
    for (folder, member_config), chosen in zip(runs, paths, strict=True)
    for path in chosen
  ]
  networks = members
  if average == 'weights':
    networks = [averaging.average_weights(members)]
  networks = [with_statistics(network) for network in networks]
  predictions = predict_split(config, networks)
  found = scores.compute(predictions.probabilities, predictions.labels)
  if not math.isfinite(found.loss):
    paths = ' or '.join(str(member.path) for member in members)
    raise UserError(f'{paths}: the loss of these parameters is {found.loss}')
  if jax.process_index():
    return
  for member in members:
    print(f'{member.path}: step {member.step:,}')
  views = predict.views_of(config.eval)
  kind = 'crops' if views.crops > 1 else 'views'
  of = [f'{views.count} {kind}' if views.count > 1 else '1 view']
  if len(members) > 1:
    what = 'networks' if average == 'predictions' else 'weights'
    of += [f'{len(members)} {what} averaged']
  print(
    f'{dataset.name} {dataset.split}: accuracy {found.accuracy:.4f} '
    f'+- {score_table.half_width(found.accuracy, found.count):.4f} (95 %), '
    f'top-5 {found.top_5:.4f}, loss {found.loss:.4f} on '
    f'{found.count:,} images' + ''.join(f', {text}' for text in of)
  )
  class_names = members[0].class_names
  print('\n'.join(score_table.lines(found, class_names)))
  if output:
    result = {
      'dataset': dataset.name,
      'split': dataset.split,
      'checkpoints': [
        {'path': str(member.path), 'step': member.step} for member in members
      ],
      'average': average if len(members) > 1 else None,
      'crops': config.eval.crops,
      'views': views.count,
      **scores.to_dict(found, class_names),
    }
    outputs.check_new(output)  # again, since the evaluation took a while
    with outputs.written_aside(output, 'w') as file:
      file.write(json.dumps(result, allow_nan=False) + '\n')
    print(f'in       {output}')


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
