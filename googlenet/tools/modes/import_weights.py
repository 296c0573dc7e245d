"""--mode=import_weights: makes a run from weights of another framework."""

from collections.abc import Mapping
from typing import NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import array_files, pretrained
from googlenet.io.array_files import Stored
from googlenet.io.workdir import check_workdir
from googlenet.model import graph, variants
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init, count_parameters
from googlenet.tools.weights import convert, names

Config = ml_collections.FrozenConfigDict


class Plan(NamedTuple):
  """The config and arrays of a run that is made from a file.

  Attributes:
    config: of the run.
    stored: the arrays of the file, without those that are ignored.
    lines: printed for the user: fields that were set, arrays that were left
      out.
  """

  config: Config
  stored: Mapping[str, Stored]
  lines: tuple[str, ...]


def run(
  config: Config, workdir: str, started: float, weights: str = ''
) -> None:
  """Writes config.json and a checkpoint with the weights of a file.

  Args:
    config: names the network; `model.aux_heads`, `data.channels`, `data.mean`
      and `data.std` are set to match the file.
    workdir: a folder that holds no run.
    started: unused.
    weights: path of the file.

  Raises:
    UserError: the file cannot be read or belongs to another network; nothing
      is written then.
  """
  del started
  if not weights:
    raise UserError(
      '--weights is missing: give the name of a .safetensors, .pth or .npz file'
    )
  check_workdir(workdir)
  scheme = names.scheme_of(config.model)
  stored = array_files.read(weights)
  plan = make_plan(config, scheme, stored)
  network = network_lib.make_network(plan.config.model)
  size = config.data.image_size
  shapes = abstract_init(network, (size, size, plan.config.data.channels))
  entries = names.make_entries(scheme, network.architecture, *shapes)
  problems = convert.find_problems(plan.stored, entries)
  if any(problems):
    raise convert.refusal(weights, problems, _hint(config, scheme, stored))
  trees = convert.to_ours(weights, plan.stored, entries)
  path = pretrained.write_run(workdir, plan.config, **trees)
  print(
    f'weights  {weights}: {scheme.network} of {scheme.framework}, '
    f'{count_parameters(trees["params"]):,} parameters, '
    f'{config.model.num_classes} classes'
  )
  for line in plan.lines:
    print(line)
  print(f'in       {path}')


def make_plan(
  config: Config, scheme: names.Scheme, stored: Mapping[str, Stored]
) -> Plan:
  """Returns the config and the arrays of a run for the content of a file."""
  changed, lines = ml_collections.ConfigDict(config.to_dict()), []

  def set_field(section: str, field: str, value, why: str) -> None:
    if changed[section][field] != value:
      changed[section][field] = value
      lines.append(f'set      config.{section}.{field}={value!r}: {why}')

  def leave_out(left: list[str], why: str) -> None:
    if left:
      shown = ', '.join(left[:3]) + (', ...' if len(left) > 3 else '')
      lines.append(f'left out {len(left)} arrays ({shown}): {why}')

  architecture = variants.ARCHITECTURES[config.model.variant]
  heads = {
    name
    for module, name in scheme.modules.items()
    if module.split('/')[0] in {head.name for head in architecture.aux_heads}
  }

  def is_of_head(name: str) -> bool:
    return any(name.startswith((f'{h}.', f'{h}/')) for h in heads)

  of_heads = [name for name in stored if is_of_head(name)]
  if config.model.aux_heads == 'off':
    leave_out(of_heads, "auxiliary heads, and config.model.aux_heads='off'")
    stored = {k: v for k, v in stored.items() if k not in set(of_heads)}
  elif config.model.aux_heads == 'auto':
    what = 'has' if of_heads else 'has no'
    value = 'on' if of_heads else 'off'
    set_field('model', 'aux_heads', value, f'the file {what} auxiliary heads')
  if scheme.ignored:
    counters = [name for name in stored if name.endswith(scheme.ignored)]
    leave_out(counters, 'step counters, which are not used here')
    stored = {k: v for k, v in stored.items() if k not in set(counters)}

  first = graph.first_convolution(architecture)
  w = stored.get(scheme.modules[first] + scheme.conv['w'])
  found = w.shape[1] if w and len(w.shape) == 4 else 0
  if not config.data.channels:
    channels = found if found in (1, 3) else 3
    why = 'the input channels of the first convolution'
    set_field('data', 'channels', channels, why)
  if changed.data.channels == 3:
    why = f'{scheme.network} takes {scheme.input}'
    set_field('data', 'mean', scheme.mean, why)
    set_field('data', 'std', scheme.std, why)
  else:
    lines.append(
      f'kept     config.data.mean={tuple(config.data.mean)} and '
      f'std={tuple(config.data.std)}: check them, since the file does not say '
      'how grey images were normalized'
    )
  return Plan(config_lib.resolve(changed), stored, tuple(lines))


def _hint(
  config: Config, scheme: names.Scheme, stored: Mapping[str, Stored]
) -> str:
  """Returns a hint if the file has another number of classes, or ''."""
  classifier = stored.get(scheme.modules['logits'] + scheme.dense['b'])
  if classifier is None or len(classifier.shape) != 1:
    return ''
  (classes,) = classifier.shape
  if classes in (0, config.model.num_classes):
    return ''
  return f' (its classifier has --config.model.num_classes={classes})'
