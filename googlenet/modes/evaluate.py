"""--mode=evaluate: scores the saved parameters of one workdir or several."""

import math

import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet import loop, multi_crop, running_statistics, trained, views
from googlenet import train_step as step_lib
from googlenet.data import batches, images
from googlenet.errors import UserError
from googlenet.evaluation import evaluate, mean_scores

Config = ml_collections.FrozenConfigDict


def run(
  config: Config,
  workdir: str,
  started: float,
  others: tuple[tuple[str, Config], ...] = (),
) -> None:
  """Prints loss, top-1 and top-5 accuracy on `data.eval_split`.

  Args:
    config: of the run; its `data` and `eval` sections may differ.
    workdir: of a trained run; nothing is written there.
    started: unused.
    others: workdirs and configs of further runs, whose predictions are averaged
      with those of the first.

  Raises:
    UserError: no checkpoint, a damaged one, or one of another network; or runs
      that do not read the same images.
  """
  del started
  for other in others:
    _check_same_images(config, workdir, *other)
  runs = [(workdir, config), *others]
  dataset = loop.load_split(config, 'eval_split')
  members = [
    _with_statistics(
      trained.load_run(
        folder, member_config, loop.image_shape(config, dataset)[-1]
      )
    )
    for folder, member_config in runs
  ]
  if len(members) == 1 and config.eval.crops == 1:
    (member,) = members
    scores = evaluate(
      step_lib.make_eval_step(member.network, config),
      member.params,
      member.network_state,
      loop.make_feed(config, dataset),
      config.eval.batch_size,
    )
  else:
    scores = evaluate_average(config, members)
  if not math.isfinite(scores['loss']):
    whose = ' or '.join(str(member.path) for member in members)
    raise UserError(
      f'{whose}: the loss of these parameters is {scores["loss"]}'
    )
  if jax.process_index():
    return
  for member in members:
    print(f'{member.path}: step {member.step:,}')
  of = [f'{config.eval.crops} crops'] if config.eval.crops > 1 else []
  num_views = views.num_views(config.eval)
  of += [f'{num_views} views'] if num_views > 1 else []
  of += [f'{len(members)} networks averaged'] if others else []
  print(
    f'{dataset.name} {dataset.split}: accuracy {scores["accuracy"]:.4f}, '
    f'top-5 {scores["top_5"]:.4f}, loss {scores["loss"]:.4f} on '
    f'{scores["count"]:,} images' + ''.join(f', {text}' for text in of)
  )


def _with_statistics(member: trained.Trained) -> trained.Trained:
  """Estimates batch norm anew where the config asks for it, as in training."""
  config = member.config
  if not config.eval.batch_norm_batches:
    return member
  train = loop.load_split(config, 'train_split')
  config_lib.durations(config.train, train.num_examples, jax.device_count())
  network_state = running_statistics.estimate(
    running_statistics.make_statistics_step(config),
    member.params,
    member.network_state,
    loop.make_feed(config, train),
    config,
  )
  return member._replace(network_state=network_state)


def _check_same_images(
  config: Config, workdir: str, other_workdir: str, other: Config
) -> None:
  # These may differ: each network has its own, or they change no image.
  own = ('mean', 'std', 'train_split', 'on_device_mb', 'workers')
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
        f'{other_value!r} in {other_workdir}; networks that are averaged see '
        f'the same images: give --config.{name}=, or leave one out'
      )


def evaluate_average(
  config: Config, members: list[trained.Trained]
) -> dict[str, float]:
  """Scores probabilities averaged over crops and networks.

  The data is read once for each size of `eval.crops`; the probabilities of all
  examples are kept meanwhile: 4 bytes x examples x classes.

  Args:
    config: the `data` and `eval` sections count for all members.
    members: that see the same images.

  Returns:
    As `evaluation.evaluate`.

  Raises:
    UserError: the data is damaged.
  """
  protocol = multi_crop.PROTOCOLS.get(config.eval.crops)
  transforms = [None]
  if protocol:
    sides = multi_crop.square_sides(protocol, config.data.image_size)
    transforms = [images.Squares(s, protocol.num_squares) for s in sides]
  predict_steps = [
    multi_crop.make_predict_step(member.network, member.config, protocol)
    for member in members
  ]
  totals, answers = [], []
  for transform in transforms:
    dataset = loop.load_split(config, 'eval_split', transform)
    feed = loop.make_feed(config, dataset)
    parts = batches.eval_batches(feed, config.eval.batch_size)
    for i, batch in enumerate(parts):
      probabilities = sum(
        np.asarray(step(member.params, member.network_state, batch['image']))
        for step, member in zip(predict_steps, members, strict=True)
      )
      if transform is transforms[0]:
        answers.append({key: batch[key] for key in ('label', 'mask')})
        totals.append(probabilities)
      else:
        totals[i] += probabilities
  count = len(transforms) * len(members)
  score_step = multi_crop.make_score_step()
  return mean_scores(
    [
      score_step(total / count, answer)
      for total, answer in zip(totals, answers, strict=True)
    ]
  )
