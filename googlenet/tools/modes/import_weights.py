"""--mode=import_weights: makes a run from weights of another framework."""

import os
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.data import auto
from googlenet.errors import UserError
from googlenet.io import array_files, pretrained
from googlenet.io.array_files import Stored
from googlenet.io.workdir import check_workdir, write_classes
from googlenet.model import graph, variants
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init, count_parameters
from googlenet.tools import hub
from googlenet.tools.weights import convert, names, presets

Config = ml_collections.FrozenConfigDict
# Fields that say how the images of a file's network were prepared.
_OF_IMAGES = {'data.mean', 'data.std', 'data.resize'}
# The `data` section of ImageNet's own layout, whose folder is given later.
_IMAGENET = {
  'source': 'folder',
  'name': 'imagenet',
  'data_dir': '',
  'classes': '',
  'train_split': 'all',
  'eval_split': 'all',
}


class Plan(NamedTuple):
  """The config and arrays of a run that is made from a file.

  Attributes:
    config: of the run.
    stored: the arrays of the file, without those that are ignored.
    lines: printed for the user: fields that were set, arrays that were left
      out.
    class_names: of the run; (): not known.
  """

  config: Config
  stored: Mapping[str, Stored]
  lines: tuple[str, ...]
  class_names: tuple[str, ...] = ()


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
      f'file, or one of {", ".join(hub.TORCHVISION)}'
    )
  check_workdir(workdir)
  if (known := hub.TORCHVISION.get(weights)) and not os.path.exists(weights):
    if 'model.variant' not in given:
      changed = config.to_dict()
      changed['model']['variant'] = known.variant
      config = ml_collections.FrozenConfigDict(changed)
    preset = preset or 'torchvision'
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
  plan = make_plan(config, scheme, stored, preset, given)
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


def make_plan(
  config: Config,
  scheme: names.Scheme,
  stored: Mapping[str, Stored],
  preset: str = '',
  given: Collection[str] = (),
) -> Plan:
  """Returns the config and the arrays of a run for the content of a file.

  Args:
    config: of the command line.
    scheme: of the network.
    stored: the arrays of the file.
    preset: name of a preset; '': as `presets.choose` says.
    given: names of fields that keep their values.
  """
  preset, how = presets.choose(config.model.variant, preset)
  changed, lines = ml_collections.ConfigDict(config.to_dict()), []
  open_values = 0, auto.AUTO

  def set_field(section: str, field: str, value: Any, why: str) -> None:
    found = changed[section][field]
    if f'{section}.{field}' in given and found not in open_values:
      return
    if found != value:
      changed[section][field] = value
      lines.append(f'set      config.{section}.{field}={value!r}: {why}')

  def listed(found: list[str]) -> str:
    shown = ', '.join(found[:3]) + (', ...' if len(found) > 3 else '')
    return f'{len(found)} arrays ({shown})'

  def leave_out(left: list[str], why: str) -> None:
    if left:
      lines.append(f'left out {listed(left)}: {why}')

  architecture = variants.ARCHITECTURES[config.model.variant]
  first = graph.first_convolution(architecture)
  first_name = scheme.modules[first] + scheme.conv['w']
  stored, prefix = convert.without_prefix(stored, first_name)
  if prefix:
    what = array_files.printable(prefix)
    lines.append(f'renamed  arrays: without {what!r} before their names')
  wide = [name for name in stored if stored[name].dtype == 'float64']
  if wide:
    lines.append(f'rounded  {listed(wide)}: from float64 to float32')
  heads = {
    name
    for module, name in scheme.modules.items()
    if module.split('/')[0] in {head.name for head in architecture.aux_heads}
  }

  def is_of_head(name: str) -> bool:
    return any(name.startswith((f'{h}.', f'{h}/')) for h in heads)

  of_heads = [name for name in stored if is_of_head(name)]
  untrained = (
    f'; those of the published {scheme.network} are not trained'
    if scheme.has_untrained_heads
    else ''
  )
  if config.model.aux_heads != 'on':
    why = f'auxiliary heads, which only training uses{untrained}; '
    leave_out(of_heads, f'{why}--config.model.aux_heads=on takes them')
    stored = {k: v for k, v in stored.items() if k not in set(of_heads)}
    if heads and changed.model.aux_heads != 'off':
      changed.model.aux_heads = 'off'
      lines.append(
        "set      config.model.aux_heads='off': the run has no auxiliary heads"
      )
  elif of_heads:
    lines.append(f'taken    {listed(of_heads)}: auxiliary heads{untrained}')
  ignored = (scheme.ignored, 'n_averaged') if scheme.ignored else 'n_averaged'
  counters = [name for name in stored if name.endswith(ignored)]
  leave_out(counters, 'step counters, which are not used here')
  stored = {k: v for k, v in stored.items() if k not in set(counters)}

  stored, num_classes, is_cut = _without_background(
    scheme, stored, how.background if how else 0
  )
  if is_cut:
    lines.append(
      "left out the first output: it is the background of TF-slim's networks"
    )
  if num_classes:
    why = 'the outputs of its classifier'
    set_field('model', 'num_classes', num_classes, why)
  w = stored.get(first_name)
  found = w.shape[1] if w and len(w.shape) == 4 else 0
  if not config.data.channels:
    channels = found if found in (1, 3) else 3
    why = 'the input channels of the first convolution'
    set_field('data', 'channels', channels, why)
  if how:
    why = f'--preset={preset}, as {scheme.network} sees images'
    set_field('data', 'image_size', how.image_size, why)
    for field, value in how.fields(changed.data.image_size).items():
      if field not in ('mean', 'std') or changed.data.channels == 3:
        set_field('data', field, value, why)
  if changed.data.channels != 3:
    lines.append(
      f'kept     config.data.mean={tuple(config.data.mean)} and '
      f'std={tuple(config.data.std)}: check them, since the file does not say '
      'how grey images were normalized'
    )
  class_names = how.class_names(changed.model.num_classes) if how else ()
  if class_names and 'data.source' not in given:
    for field, value in _IMAGENET.items():
      if f'data.{field}' not in given:
        changed.data[field] = value
    lines.append(
      'set      config.data to ImageNet: evaluate on its validation images '
      'by --config.data.data_dir=FOLDER, with a folder per class, named by '
      'its WordNet id'
    )
  config = config_lib.resolve(changed)
  return Plan(config, stored, tuple(lines), class_names)


def _without_background(
  scheme: names.Scheme, stored: Mapping[str, Stored], background: int
) -> tuple[Mapping[str, Stored], int, bool]:
  """Removes outputs before those of ImageNet's first class.

  Args:
    scheme: of the network.
    stored: the arrays of a file.
    background: number of such outputs that the file may have.

  Returns:
    The arrays, the number of classes (0: the file does not tell), and whether
    outputs were removed.
  """
  bias = stored.get(scheme.modules['logits'] + scheme.dense['b'])
  num_outputs = bias.shape[0] if bias and len(bias.shape) == 1 else 0
  if not background or num_outputs != presets.NUM_CLASSES + background:
    return stored, num_outputs, False
  classifiers = tuple(
    name + ending
    for module, name in scheme.modules.items()
    if module.endswith('logits')
    for ending in scheme.dense.values()
  )

  def cut(array: Stored) -> Stored:
    shape = (presets.NUM_CLASSES, *array.shape[1:])
    read = array.read
    return array._replace(shape=shape, read=lambda: read()[background:])

  stored = {
    name: cut(array)
    if name in classifiers and array.shape[:1] == (num_outputs,)
    else array
    for name, array in stored.items()
  }
  return stored, presets.NUM_CLASSES, True


def _hint(plan: Plan, scheme: names.Scheme, problems: convert.Problems) -> str:
  """Returns fields with which the file would fit better, or ''."""
  config, hints = plan.config, []
  classifier = plan.stored.get(scheme.modules['logits'] + scheme.dense['b'])
  if classifier and len(classifier.shape) == 1:
    (classes,) = classifier.shape
    if classes not in (0, config.model.num_classes):
      hints.append(f'its classifier has --config.model.num_classes={classes}')
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
