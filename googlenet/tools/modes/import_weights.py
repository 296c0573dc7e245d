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
    raise convert.refusal(weights, problems, _hint(plan, scheme, problems))
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
    if heads:
      set_field('model', 'aux_heads', 'off', 'the run has no auxiliary heads')
  elif of_heads:
    lines.append(f'taken    {listed(of_heads)}: auxiliary heads{untrained}')
  ignored = (scheme.ignored, 'n_averaged') if scheme.ignored else 'n_averaged'
  counters = [name for name in stored if name.endswith(ignored)]
  leave_out(counters, 'step counters, which are not used here')
  stored = {k: v for k, v in stored.items() if k not in set(counters)}

  if scheme.framework == 'PyTorch' and not config.data.resize:
    # The published accuracy is that of the centre: 224 of 256, 299 of 342.
    why = f'as {scheme.network} is evaluated; 0: the whole image is squeezed'
    set_field('data', 'resize', round(config.data.image_size * 8 / 7), why)
  w = stored.get(first_name)
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
