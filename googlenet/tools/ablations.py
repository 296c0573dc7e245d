"""Trains ablations of a network at equal cost, and prints their table.

  python -m googlenet.tools.ablations --workdir=runs/ablations
  python -m googlenet.tools.ablations --workdir=runs/ablations --shard=0/2

Each row of the table is the network of the config with some of its `model`
fields changed, at the width at which it makes as many multiply-adds for an
image as without that change, trained with each seed. The same command
continues; --shard=I/N trains every Nth run, for several processes side by side.
Further arguments set fields of all runs: --config.train.epochs=6.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections

from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.cli.overrides import as_flags
from googlenet.cli.process import ending, run_tool
from googlenet.data import auto, pipeline
from googlenet.errors import EXIT_INTERRUPTED, Stopped, UserError
from googlenet.model import graph, variants
from googlenet.runtime import places
from googlenet.tools import equal_cost, operations, runs
from googlenet.tools.sweep import grid, trials

WHOLE = 'whole block'
# The fields of each row, in the order of the table; the first is the reference.
SETTINGS: dict[str, dict[str, Any]] = {
  WHOLE: {},
  'without 1x1': {'model.drop_branches': ('1x1',)},
  'without 3x3': {'model.drop_branches': ('3x3',)},
  'without 5x5': {'model.drop_branches': ('5x5',)},
  'without pool': {'model.drop_branches': ('pool',)},
  'only 3x3': {'model.drop_branches': ('1x1', '5x5', 'pool')},
  'average pooling': {'model.block_pool': 'average'},
  'no pooling': {'model.block_pool': 'none'},
  'one 3x3 layer': {
    'model.stage_blocks': ('3=conv_3x3', '4=conv_3x3', '5=conv_3x3')
  },
}


class Row(NamedTuple):
  """A setting, and the results of its finished runs."""

  name: str
  width_multiplier: float
  multiply_adds: int
  parameters: int
  accuracies: dict[int, float]  # by seed


def make_rows(config: ml_collections.FrozenConfigDict) -> list[Row]:
  """Returns the rows of the table, with their sizes and without results.

  Args:
    config: of the whole network, complete.

  Raises:
    UserError: a setting is not possible in this network.
  """
  dataset = pipeline.load_split(config, 'train_split')
  shape = pipeline.image_shape(config, dataset)
  whole = equal_cost.multiply_adds(config.model, shape)
  made = []
  for name, fields in SETTINGS.items():
    values = {key.removeprefix('model.'): v for key, v in fields.items()}
    section = equal_cost.with_values(config.model, **values)
    found = equal_cost.equal_width(section, shape, whole)
    wide = equal_cost.with_values(
      section, width_multiplier=found.width_multiplier
    )
    layers = graph.graph(variants.resolve(wide), shape)
    parameters = sum(layer.parameters for layer in layers)
    made.append(
      Row(name, found.width_multiplier, found.multiply_adds, parameters, {})
    )
  return made


def plan(
  config: ml_collections.FrozenConfigDict,
  rows: Sequence[Row],
  seeds: Sequence[int],
) -> list[grid.Trial]:
  """Returns the runs; all rows have one before any has two.

  Args:
    config: of the whole network, complete.
    rows: of `make_rows`.
    seeds: of each row.
  """
  made = []
  for seed in seeds:
    for row in rows:
      values = SETTINGS[row.name] | {
        'model.width_multiplier': row.width_multiplier,
        'seed': seed,
      }
      own = ml_collections.ConfigDict(config.to_dict())
      own.update_from_flattened_dict(values)
      name = f'{row.name.replace(" ", "_")}_s{seed}'
      made.append(grid.Trial(len(made), name, values, config_lib.resolve(own)))
  return made


def read_results(
  workdir: pathlib.Path, rows: Sequence[Row], every: Sequence[grid.Trial]
) -> list[Row]:
  """Returns the rows with the accuracies of the finished runs.

  Raises:
    UserError: a folder holds a run with another config.
  """
  found: list[dict[int, float]] = [{} for _ in rows]
  for run in every:
    state = trials.look(workdir / run.name, run)
    if state.name == 'finished':
      accuracy = state.result['eval/accuracy']
      found[run.index % len(rows)][run.values['seed']] = accuracy
  return [
    row._replace(accuracies=of_row)
    for row, of_row in zip(rows, found, strict=True)
  ]


def render(rows: Sequence[Row]) -> str:
  """Returns the table: means over seeds, and differences seed by seed."""
  lines = [
    (
      'block',
      'width',
      'multiply-adds',
      'parameters',
      'seeds',
      'accuracy',
      'minus whole',
    )
  ]
  for row in rows:
    score = runs.score(list(row.accuracies.values()))
    against = runs.paired(row.accuracies, rows[0].accuracies)
    mean = '-' if score.mean is None else f'{score.mean:.4f}'
    if score.deviation is not None:
      mean += f' +- {score.deviation:.4f}'
    lines.append(
      (
        row.name,
        f'{row.width_multiplier:g}',
        f'{row.multiply_adds:,}',
        f'{row.parameters:,}',
        str(len(row.accuracies)),
        mean,
        f'{against.mean:+.4f} +- {against.error:.4f}'
        if against and row is not rows[0]
        else '-',
      )
    )
  return runs.aligned(lines, has_numbers=True) + (
    '\naccuracy: mean and deviation over seeds; minus whole: mean difference '
    'seed by seed and its standard error'
  )


def _train(
  workdir: pathlib.Path, flags: Sequence[str], mine: Sequence[grid.Trial]
) -> dict[str, str]:
  """Trains what is not finished; returns why runs failed, by name.

  Raises:
    Stopped: a signal ended it.
  """
  failed = {}
  with trials.Process() as process:
    for number, run in enumerate(mine, start=1):
      if trials.look(workdir / run.name, run).name in ('finished', 'in use'):
        continue
      print(f'run {number}/{len(mine)}  {workdir / run.name}', flush=True)
      end = process.run(
        [
          *places.launcher(),
          f'--workdir={workdir / run.name}',
          *flags,
          *as_flags(run.values),
        ]
      )
      if end.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
      if process.signal_name:
        raise Stopped(
          f'ended on {process.signal_name}: the same command continues'
        )
      if end.exit_code:
        failed[run.name] = end.words
  return failed


def main(argv: Sequence[str]) -> int:
  """Trains what is missing and prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m googlenet.tools.ablations',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--workdir', required=True, help='folder of the runs')
  parser.add_argument(
    '--config', default='fmnist28_ablations', help='the whole network'
  )
  parser.add_argument(
    '--seeds', type=int, default=3, help='seeds of each row: 0, 1, ...'
  )
  parser.add_argument('--shard', default='', help='part of the runs: 0/2')
  parser.add_argument(
    '--dry_run', action='store_true', help='print the table, train nothing'
  )
  operations.add_flag(parser)
  options, arguments = parser.parse_known_args(argv)
  with ending() as end:
    operations.register(options.operations)
    file = command_line.config_of(options.config)
    config = auto.complete(command_line.read_config(file, '', arguments))
    rows = make_rows(config)
    every = plan(config, rows, range(options.seeds))
    mine = grid.shard(every, options.shard)
    workdir, failed = pathlib.Path(options.workdir), {}
    read_results(workdir, rows, every)  # reports other runs before training
    if not options.dry_run:
      flags = [f'--config={file}', *arguments]
      if options.operations:
        flags.append(f'{operations.FLAG}={options.operations}')
      failed = _train(workdir, flags, mine)
    print(render(read_results(workdir, rows, every)))
    for name, why in failed.items():
      raise UserError(
        f'{len(failed)} of {len(mine)} runs failed, {name}: {why}; the same '
        'command tries them again'
      )
  return end.code


if __name__ == '__main__':
  run_tool(main)
