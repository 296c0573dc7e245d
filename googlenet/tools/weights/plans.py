"""The config and the arrays of a run that is made from weights of others."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.data import auto
from googlenet.errors import UserError
from googlenet.io import array_files
from googlenet.io.array_files import Stored
from googlenet.model import graph, variants
from googlenet.tools.weights import convert, names, presets

Config = ml_collections.FrozenConfigDict
Arrays = Mapping[str, Stored]
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
  stored: Arrays
  lines: tuple[str, ...]
  class_names: tuple[str, ...] = ()


def make_plan(
  config: Config,
  scheme: names.Scheme,
  stored: Arrays,
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

  Raises:
    UserError: the config is wrong, or leaves a field to images.
  """
  preset, how = presets.choose(config.model.variant, preset)
  draft = _Draft(config, given)
  architecture = variants.architecture_of(config.model)
  first = graph.first_convolution(architecture)
  first_name = scheme.modules[first] + scheme.conv['w']
  stored = _without_prefix(draft, stored, first_name)
  stored = _without_heads(draft, scheme, stored)
  stored = _without_counters(draft, scheme, stored)
  stored = _set_classes(draft, scheme, stored, how)
  _set_channels(draft, stored.get(first_name))
  _set_preset(draft, scheme, preset, how)
  class_names = _set_imagenet(draft, how)
  draft.set('train', 'precision', 'float32', 'as the weights were made')
  config = config_lib.resolve(draft.config)
  for section, field in auto.open_fields(config):
    if field != 'num_classes':  # the file is refused then
      raise UserError(
        f'config.{section}.{field}={tuple(config[section][field])}: a weight '
        'file has no images on which it could be measured: give numbers',
        f'{section}.{field}',
      )
  return Plan(config, stored, tuple(draft.lines), class_names)


class _Draft:
  """The config of a plan while it is made, and what the user is told.

  Attributes:
    config: may be changed.
    given: names of fields that keep their values.
    lines: so far.
  """

  def __init__(self, config: Config, given: Collection[str]):
    self.config = ml_collections.ConfigDict(config.to_dict())
    self.given = given
    self.lines: list[str] = []

  def set(self, section: str, field: str, value: Any, why: str) -> None:
    """Sets a field, unless the user has given it a value."""
    found = self.config[section][field]
    if f'{section}.{field}' in self.given and found not in (0, auto.AUTO):
      return
    if found != value:
      self.config[section][field] = value
      self.lines.append(f'set      config.{section}.{field}={value!r}: {why}')


def _listed(found: list[str]) -> str:
  shown = ', '.join(found[:3]) + (', ...' if len(found) > 3 else '')
  return f'{len(found)} arrays ({shown})'


def _without(
  draft: _Draft, stored: Arrays, left: list[str], why: str
) -> Arrays:
  """Leaves out arrays, and says why."""
  if left:
    draft.lines.append(f'left out {_listed(left)}: {why}')
  return {k: v for k, v in stored.items() if k not in set(left)}


def _without_prefix(draft: _Draft, stored: Arrays, first_name: str) -> Arrays:
  """Removes what stands before all names; tells of float64 too."""
  stored, prefix = convert.without_prefix(stored, first_name)
  if prefix:
    what = array_files.printable(prefix)
    draft.lines.append(f'renamed  arrays: without {what!r} before their names')
  wide = [name for name in stored if stored[name].dtype == 'float64']
  if wide:
    draft.lines.append(f'rounded  {_listed(wide)}: from float64 to float32')
  return stored


def _without_heads(
  draft: _Draft, scheme: names.Scheme, stored: Arrays
) -> Arrays:
  """Leaves out the auxiliary heads, unless `model.aux_heads` is 'on'."""
  model = draft.config.model
  architecture = variants.architecture_of(model)
  ours = {head.name for head in architecture.aux_heads}
  heads = {
    name
    for module, name in scheme.modules.items()
    if module.split('/')[0] in ours
  }
  starts = tuple(f'{head}{joint}' for head in heads for joint in './')
  of_heads = [name for name in stored if name.startswith(starts)]
  untrained = (
    f'; those of the published {scheme.network} are not trained'
    if scheme.has_untrained_heads
    else ''
  )
  if model.aux_heads == 'on':
    if of_heads:
      draft.lines.append(
        f'taken    {_listed(of_heads)}: auxiliary heads{untrained}'
      )
    return stored
  why = f'auxiliary heads, which only training uses{untrained}; '
  why += '--config.model.aux_heads=on takes them'
  stored = _without(draft, stored, of_heads, why)
  if heads and model.aux_heads != 'off':
    model.aux_heads = 'off'
    draft.lines.append(
      "set      config.model.aux_heads='off': the run has no auxiliary heads"
    )
  return stored


def _without_counters(
  draft: _Draft, scheme: names.Scheme, stored: Arrays
) -> Arrays:
  """Leaves out how often batch norm or an average was updated."""
  endings = (scheme.ignored, 'n_averaged') if scheme.ignored else 'n_averaged'
  counters = [name for name in stored if name.endswith(endings)]
  why = 'step counters, which are not used here'
  return _without(draft, stored, counters, why)


def _set_classes(
  draft: _Draft,
  scheme: names.Scheme,
  stored: Arrays,
  how: presets.Preset | None,
) -> Arrays:
  """Takes the number of classes from the file, without the background."""
  stored, num_classes, is_cut = _without_background(
    scheme, stored, how.background if how else 0
  )
  if is_cut:
    draft.lines.append(
      "left out the first output: it is the background of TF-slim's networks"
    )
  if num_classes:
    why = 'the outputs of its classifier'
    draft.set('model', 'num_classes', num_classes, why)
  return stored


def _set_channels(draft: _Draft, w: Stored | None) -> None:
  """Takes `data.channels` from the first convolution, if it is open."""
  if draft.config.data.channels:
    return
  found = w.shape[1] if w and len(w.shape) == 4 else 0
  why = 'the input channels of the first convolution'
  draft.set('data', 'channels', found if found in (1, 3) else 3, why)


def _set_preset(
  draft: _Draft, scheme: names.Scheme, preset: str, how: presets.Preset | None
) -> None:
  """Sets how images are prepared; grey ones keep `data.mean` and `std`."""
  data = draft.config.data
  if how:
    why = f'--preset={preset}, as {scheme.network} sees images'
    draft.set('data', 'image_size', how.image_size, why)
    for field, value in how.fields(data.image_size).items():
      if field not in ('mean', 'std') or data.channels == 3:
        draft.set('data', field, value, why)
  if data.channels != 3:
    draft.lines.append(
      f'kept     config.data.mean={tuple(data.mean)} and '
      f'std={tuple(data.std)}: check them, since the file does not say '
      'how grey images were normalized'
    )


def _set_imagenet(draft: _Draft, how: presets.Preset | None) -> tuple[str, ...]:
  """Returns ImageNet's names for a network of its classes, () for others.

  Its images become those of the `data` section too, unless the user has named
  others.
  """
  class_names = how.class_names(draft.config.model.num_classes) if how else ()
  if class_names and 'data.source' not in draft.given:
    for field, value in _IMAGENET.items():
      if f'data.{field}' not in draft.given:
        draft.config.data[field] = value
    draft.lines.append(
      'set      config.data to ImageNet: evaluate on its validation images '
      'by --config.data.data_dir=FOLDER, with a folder per class, named by '
      'its WordNet id'
    )
  return class_names


def _without_background(
  scheme: names.Scheme, stored: Arrays, background: int
) -> tuple[Arrays, int, bool]:
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
