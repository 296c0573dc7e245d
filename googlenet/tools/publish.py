"""A finished run, small enough to be kept with the code or sent to somebody.

  python -m googlenet.tools.publish runs/fast pretrained/fmnist28_fast

The new folder is a workdir like that of the run (evaluate, predict, report,
demo, features, export and fine-tuning take it), without what only training
needs: the last checkpoint alone, of it the parameters and statistics that were
evaluated. config.json is that of the run, but for what is a machine's own
(data.data_dir, train.compilation_cache, benchmark.torch_python) and for
eval.batch_norm_batches (0: the statistics are in the file).
`sha256sum -c SHA256SUMS` in that folder checks all of it.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import pretrained
from googlenet.io.workdir import write_text
from googlenet.runtime.machine import DEFAULT_CACHE
from googlenet.tools import runs

SUMS = 'SHA256SUMS'
# Paths of the machine, and what others begin with.
_OF_A_MACHINE = {
  'data.data_dir': '',
  'train.compilation_cache': DEFAULT_CACHE,
  'benchmark.torch_python': '',
}
# What stays as it is, where the run has it.
_COPIED = ('classes.txt', 'metrics.jsonl', 'result.json')


def publish(
  run: str | os.PathLike[str], folder: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes the folder, whole or not at all.

  Args:
    run: workdir of a finished run.
    folder: a new one, or one that is empty.

  Returns:
    The path of the checkpoint in it.

  Raises:
    UserError: `run` is no finished run or its last checkpoint is damaged, or
      `folder` holds something or cannot be made.
  """
  run, folder = pathlib.Path(run), pathlib.Path(folder)
  config = config_lib.load(run / 'config.json')
  result = runs.read(str(run)).result
  if not result:
    raise UserError(
      f'{run} is not finished, it has no whole result.json: go on with it by '
      f'python launch.py --workdir={run}'
    )
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise UserError(
      f'{folder} is there already and is not overwritten: give a new folder'
    )
  source, restored = pretrained.read_run(run)
  if int(restored.step) != result.get('step'):
    raise UserError(
      f'{run}/result.json is of step {result.get("step", "?")}, the newest '
      f'checkpoint that is whole of step {int(restored.step)}, which is not '
      'what was scored: delete result.json, and go on with the run by python '
      f'launch.py --workdir={run}'
    )
  shape = pretrained.stored_image_shape(source)
  about = {} if shape is None else {'data': {'image_shape': shape}}
  config.update_from_flattened_dict(_OF_A_MACHINE)
  config.eval.batch_norm_batches = 0
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
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
    raise UserError(
      f'{folder} cannot be written ({error.strerror}): give another folder'
    ) from error
  return folder / path.relative_to(aside)


def sums(folder: pathlib.Path) -> str:
  """Returns the SHA-256 of all files of a folder, as `sha256sum` prints it."""
  paths = (p for p in folder.rglob('*') if p.is_file() and p.name != SUMS)
  return ''.join(
    f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n'
    for name, path in sorted((str(p.relative_to(folder)), p) for p in paths)
  )


def main(argv: Sequence[str]) -> int:
  """Writes the folder and says what it holds; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m googlenet.tools.publish',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('run', help='workdir of a finished run')
  parser.add_argument('folder', help='a new one')
  options = parser.parse_args(argv)
  try:
    path = publish(options.run, options.folder)
    result = runs.read(options.run).result
  except (UserError, OSError) as error:
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    return 2
  size = path.stat().st_size / 1e6
  print(
    f'in       {options.folder}: step {result.get("step", "?")}, eval accuracy '
    f'{result.get("eval/accuracy", "?")}, {size:.1f} MB'
  )
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
