"""--mode=import_weights: makes a run from weights of another framework."""

import os
import pathlib
from collections.abc import Collection

import jax
import ml_collections

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import array_files, pretrained
from googlenet.io.workdir import check_workdir, write_classes
from googlenet.model import graph, variants
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init, count_parameters
from googlenet.tools import hub
from googlenet.tools.inference import outputs
from googlenet.tools.weights import convert, names, plans, presets

Config = ml_collections.FrozenConfigDict
# Fields that say how the images of a file's network were prepared.
_OF_IMAGES = {'data.mean', 'data.std', 'data.resize'}


def run(
  config: Config,
  workdir: str,
  started: float,
  weights: str = '',
  preset: str = '',
  given: Collection[str] = (),
) -> None:
  """Writes config.json and a checkpoint with the weights of a file.

  Args:
    config: names the network; other fields are set to match the file and the
      preset. Need not be checked yet.
    workdir: a folder that holds no run.
    started: unused.
    weights: path of the file, or a name that `hub.weights_of` knows.
    preset: how images are prepared, a name in `presets.NAMES`; '': as the only
      preset of the network says.
    given: names of fields that keep their values.

  Raises:
    UserError: the file cannot be read or belongs to another network, or a
      preset is needed; nothing is written then.
  """
  del started
  outputs.check_one_process('import_weights', jax.process_count())
  for line in import_run(config, workdir, weights, preset, given):
    print(line)


def import_run(
  config: Config,
  workdir: str,
  weights: str,
  preset: str = '',
  given: Collection[str] = (),
) -> list[str]:
  """Does what `run` does; returns the lines that it prints."""
  if not weights:
    raise UserError(
      '--weights is missing: give the name of a .safetensors, .pth or .npz '
      f'file, or one of {", ".join(hub.PUBLISHED)}'
    )
  check_workdir(workdir)
  if (known := hub.PUBLISHED.get(weights)) and not os.path.exists(weights):
    if 'model.variant' not in given:
      changed = config.to_dict()
      changed['model']['variant'] = known.variant
      config = ml_collections.FrozenConfigDict(changed)
    preset = preset or known.preset
  scheme = names.scheme_of(config.model)
  preset, how = presets.choose(config.model.variant, preset)
  if how is None and not set(given) >= _OF_IMAGES:
    raise presets.missing(config.model.variant)
  changed = ml_collections.ConfigDict(config.to_dict())
  if how and 'data.image_size' not in given:
    changed.data.image_size = how.image_size
  config_lib.resolve(changed)  # before the file, which may be large, is read
  weights = hub.weights_of(weights)
  stored = array_files.read(weights)
  plan = plans.make_plan(config, scheme, stored, preset, given)
  network = network_lib.make_network(plan.config.model)
  size = plan.config.data.image_size
  shapes = abstract_init(network, (size, size, plan.config.data.channels))
  entries = names.make_entries(scheme, network.architecture, *shapes)
  problems = convert.find_problems(plan.stored, entries)
  if any(problems):
    raise convert.refusal(weights, problems, _hint(plan, scheme, problems))
  trees = convert.to_ours(weights, plan.stored, entries)
  if plan.class_names:
    pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
    write_classes(workdir, plan.class_names)
  path = pretrained.write_run(workdir, plan.config, **trees)
  return [
    f'weights  {weights}: {scheme.network} of {scheme.framework}, '
    f'{count_parameters(trees["params"]):,} parameters, '
    f'{plan.config.model.num_classes} classes',
    *plan.lines,
    f'in       {path}',
  ]


def _hint(
  plan: plans.Plan, scheme: names.Scheme, problems: convert.Problems
) -> str:
  """Returns fields with which the file would fit better, or ''."""
  config, hints = plan.config, []
  classifier = plan.stored.get(scheme.modules['logits'] + scheme.dense['b'])
  if classifier and len(classifier.shape) == 1:
    (classes,) = classifier.shape
    if classes not in (0, config.model.num_classes):
      hints.append(f'its classifier has --config.model.num_classes={classes}')
  first = graph.first_convolution(variants.architecture_of(config.model))
  weights = plan.stored.get(scheme.modules[first] + scheme.conv['w'])
  if weights and len(weights.shape) == 4:
    channels = weights.shape[1]
    if channels in (1, 3) and channels != config.data.channels:
      hints.append(
        f'its first convolution has --config.data.channels={channels}'
      )
  size = scheme.image_size
  network = network_lib.make_network(config.model)
  shapes = abstract_init(network, (size, size, config.data.channels))
  entries = names.make_entries(scheme, network.architecture, *shapes)
  found = convert.find_problems(plan.stored, entries)
  if len(found.of_wrong_shape) < len(problems.of_wrong_shape):
    hints.append(f'its shapes fit --config.data.image_size={size}')
  heads = {head.name for head in network.architecture.aux_heads}
  of_heads = [e.name for e in entries if e.module.split('/')[0] in heads]
  if of_heads and set(of_heads) <= set(problems.missing):
    hints.append('it has no auxiliary heads: --config.model.aux_heads=off')
  return f' ({"; ".join(hints)})' if hints else ''
