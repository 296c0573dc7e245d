"""Copies a finished run without the files that only training needs.

  python -m googlenet.tools.publish runs/fast pretrained/fmnist28_fast

The new folder is a small workdir that can be kept with the code or sent to
others. Evaluate, predict, report, demo, features, export and fine-tuning accept
it. Of the checkpoints it holds only the last one, with the parameters and
statistics used in evaluation. In config.json the paths of this machine are
reset (data.data_dir, train.compilation_cache, benchmark.torch_python), and
eval.batch_norm_batches is 0, since the file holds the statistics.
`sha256sum -c SHA256SUMS` in the folder checks all files.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

from googlenet import config as config_lib
from googlenet.cli.process import ending, run_tool
from googlenet.errors import UserError, is_full, writing
from googlenet.io import pretrained
from googlenet.io.workdir import write_text
from googlenet.runtime.machine import DEFAULT_CACHE
from googlenet.tools import runs

SUMS = 'SHA256SUMS'
# Paths of this machine, with their default values.
_OF_A_MACHINE = {
  'data.data_dir': '',
  'train.compilation_cache': DEFAULT_CACHE,
  'benchmark.torch_python': '',
}
# Files that are copied if the run has them.
_COPIED = ('classes.txt', 'metrics.jsonl', 'result.json')


def publish(
  run: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes the folder, completely or not at all.

  Args:
    run: workdir of a finished run.
    folder: path of a new or empty folder.

  Returns:
    The path of the checkpoint in the folder.

  Raises:
    UserError: `run` is no finished run, its last checkpoint is damaged, or
      `folder` is not empty or cannot be made.
  """
  run, folder = pathlib.Path(run), pathlib.Path(folder)
  config = config_lib.load(run / 'config.json', with_local=True)
  result = runs.read(str(run)).result
  if not result:
    raise UserError(
      f'{run} is not finished, it has no complete result.json: continue it by '
      f'python launch.py --workdir={run}'
    )
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise UserError(
      f'{folder} exists already and is not overwritten: give a new folder'
    )
  source, restored = pretrained.read_run(run)
  if int(restored.step) != result.get('step'):
    raise UserError(
      f'{run}/result.json belongs to step {result.get("step", "?")}, but the '
      f'newest undamaged checkpoint to step {int(restored.step)}, which was '
      'not evaluated: delete result.json and continue the run by python '
      f'launch.py --workdir={run}'
    )
  about = {'data': pretrained.stored_data(source)}
  config.update_from_flattened_dict(_OF_A_MACHINE)
  config.eval.batch_norm_batches = 0
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
      writing(folder),
      tempfile.TemporaryDirectory(dir=folder.parent) as made,
    ):
      aside = pathlib.Path(made) / 'run'
      path = pretrained.write_run(
        aside,
        config,
        restored.params,
        restored.network_state,
        restored.step,
        about,
      )
      for name in _COPIED:
        if (run / name).is_file():
          shutil.copyfile(run / name, aside / name)
      write_text(aside / SUMS, sums(aside))
      os.replace(aside, folder)
  except OSError as error:
    if is_full(error):
      raise
    raise UserError(
      f'{folder} cannot be written ({error.strerror}): give another folder'
    ) from error
  return folder / path.relative_to(aside)


def sums(folder: pathlib.Path) -> str:
  """Returns the SHA-256 of each file in a folder, as `sha256sum` prints it."""
  paths = (p for p in folder.rglob('*') if p.is_file() and p.name != SUMS)
  return ''.join(
    f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n'
    for name, path in sorted((str(p.relative_to(folder)), p) for p in paths)
  )


def main(argv: Sequence[str]) -> int:
  """Runs the command line and returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m googlenet.tools.publish',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('run', help='workdir of a finished run')
  parser.add_argument('folder', help='the new folder')
  options = parser.parse_args(argv)
  with ending() as end:
    path = publish(options.run, options.folder)
    result = runs.read(options.run).result
    size = path.stat().st_size / 1e6
    print(
      f'in       {options.folder}: step {result.get("step", "?")}, eval '
      f'accuracy {result.get("eval/accuracy", "?")}, {size:.1f} MB'
    )
  return end.code


if __name__ == '__main__':
  run_tool(main)
