"""--mode=benchmark: measures the speed of this project and of torch.

Only the peer processes use a device. This process does not, since it would
occupy GPU memory that they need.
"""

import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.io.workdir import check_workdir, write_text
from googlenet.tools.benchmark import (
  batch_sizes,
  contenders,
  process,
  results,
  roofline,
  runner,
  table,
)
from googlenet.tools.benchmark.termination import Terminated, sigterm_raises

Config = ml_collections.FrozenConfigDict


class Plan(NamedTuple):
  """The facts that are known before anything is measured."""

  image_shape: tuple[int, int, int]  # (H, W, C)
  torch_python: str  # path of a Python that has torch; '': torch is left out
  torch_left_out: str  # the reason, or ''


def run(
  config: Config, workdir: str, started: float, operations: str = ''
) -> None:
  """Prints each result when it is measured and updates benchmark.json.

  On SIGINT and SIGTERM the running peer is killed, the results so far are
  printed and written, and the program ends.

  Args:
    config: resolved.
    workdir: a folder that holds no run yet; made with the first result.
    started: unused.
    operations: file that registers the operations of the network, or ''.

  Raises:
    UserError: the input is bad, the system is Windows, or nothing could be
      measured.
    KeyboardInterrupt: SIGINT was received.
  """
  del started
  if not hasattr(os, 'fork'):
    raise UserError(
      '--mode=benchmark starts and ends groups of processes, which this system '
      'does not have: run it on Linux or macOS, on Windows inside WSL'
    )
  check_workdir(workdir)
  plan = make_plan(config)
  if plan.torch_left_out:
    print(f'torch is left out: {plan.torch_left_out}', flush=True)
  path = pathlib.Path(workdir) / 'benchmark.json'
  reports: runner.Reports = {}

  def save(complete: bool = False) -> dict[str, Any]:
    result = compose(config, plan, reports, complete)
    if complete or runner.has_result(reports):
      path.parent.mkdir(parents=True, exist_ok=True)
      text = json.dumps(result, indent=2, allow_nan=False)
      write_text(path, text + '\n')
    return result

  def show(result: dict[str, Any]) -> None:
    print(f'\n{table.render(result)}\n\nin       {path}', flush=True)

  with sigterm_raises():
    try:
      measure(config, plan, reports, save, operations=operations)
    except (KeyboardInterrupt, Terminated, UserError):
      if runner.has_result(reports):
        show(save())
      raise
    if not runner.has_result(reports):
      raise UserError(
        'nothing was measured within config.benchmark.seconds='
        f'{config.benchmark.seconds:g}: raise it'
      )
    show(save(complete=True))


def make_plan(config: Config) -> Plan:
  """Checks the data and the batch sizes, and looks for torch.

  Raises:
    UserError: data, batch sizes or `benchmark.torch_python` are wrong.
  """
  dataset = pipeline.load_split(config, 'train_split')
  pipeline.load_split(config, 'eval_split')
  batch_sizes.check(config, dataset.num_examples)
  python, why_not = contenders.find_torch(config.benchmark.torch_python)
  if python and not contenders.has_torch_peer(config.model):
    python, why_not = '', 'it has only the plain networks, without changes'
  return Plan(pipeline.image_shape(config, dataset), python, why_not)


def measure(
  config: Config,
  plan: Plan,
  reports: runner.Reports,
  changed: Callable[[], Any] = lambda: None,
  run: runner.Run | None = None,
  operations: str = '',
) -> None:
  """Measures all peers.

  Args:
    config: resolved.
    plan: of `make_plan`.
    reports: empty; results are merged into it as they arrive.
    changed: called after each result.
    run: runs one peer; by default as a process.
    operations: as for `run`.

  Raises:
    UserError: as in `runner.play`.
  """

  def run_process(contender, tell) -> None:
    process.run(contender, config.benchmark.seconds, tell)

  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)

    def others(facts: process.Report) -> list[contenders.Contender]:
      if not plan.torch_python:
        return []
      if 'batch_sizes' not in facts:
        print('torch is left out: this project did not reach a device')
        return []
      if facts['backend'] not in ('cpu', 'gpu'):
        print(f'torch is left out: it is not measured on a {facts["backend"]}')
        return []
      return contenders.torch_contenders(
        config,
        plan.image_shape[-1],
        plan.torch_python,
        facts['backend'],
        facts['batch_sizes'],
        folder,
      )

    runner.play(
      contenders.our_contenders(config, folder, operations),
      others,
      config.benchmark.rounds,
      run or run_process,
      reports,
      changed,
    )


def compose(
  config: Config, plan: Plan, reports: runner.Reports, complete: bool
) -> dict[str, Any]:
  """Returns the content of benchmark.json.

  Args:
    config: resolved.
    plan: of `make_plan`.
    reports: the results so far.
    complete: whether the benchmark reached its end.
  """
  facts = runner.facts(reports)
  sizes = facts.get('batch_sizes', [])
  size = batch_sizes.main_size(config, sizes) if sizes else None
  works = roofline.works(config.model, plan.image_shape)
  return {
    'complete': complete,
    **results.headline(reports, size),
    'batch_size': size,
    'machine': {
      **{
        key: facts.get(key)
        for key in ('devices', 'num_devices', 'backend', 'kernels')
      },
      'cpus': os.cpu_count(),
      'platform': platform.platform(),
      'python': platform.python_version(),
    },
    'network': {
      'variant': config.model.variant,
      'image_shape': list(plan.image_shape),
      'num_classes': config.model.num_classes,
      'parameters': facts.get('parameters'),
      'flop_per_image': roofline.flop_per_image(works),
    },
    'rows': results.rows(reports, sizes, works),
    'rates': {
      dtype: rates._asdict() for dtype, rates in results.rates(reports).items()
    },
    'starts': results.starts(reports, size),
    'shares': results.shares(reports, size),
    'stolen': results.stolen(reports),
    'torch_left_out': plan.torch_left_out,
    'config': config.to_dict(),
  }
