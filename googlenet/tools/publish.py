"""Copies a finished run without the files that only training needs.

  python -m googlenet.tools.publish runs/fast pretrained/fmnist28_fast

The new folder is a small workdir that can be kept with the code or sent to
others; an imported network, which has no scores, can be one too. Evaluate,
predict, report, demo, features, export and fine-tuning accept it. Of the
checkpoints it holds only the last one, with the parameters and statistics used
in evaluation. In config.json the paths of this machine are reset
(data.data_dir, data.classes, finetune.from_workdir, train.teacher,
train.compilation_cache, benchmark.torch_python), and eval.batch_norm_batches is
0, since the file holds the statistics.
--half stores weights in two bytes: as bfloat16 if the run computes in it, which
rounds them in any case, so all predictions keep their bits; else as float16,
which may change a last digit. They are float32 again when they are read.
`sha256sum -c SHA256SUMS` in the folder checks all files but README.md, the
model card, which is yours to edit. Uploaded to Hugging Face as OWNER/NAME, the
folder is read by `googlenet.load('hf:OWNER/NAME')`.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.cli.process import ending, run_tool
from googlenet.data.splits import some
from googlenet.errors import UserError, is_full, writing
from googlenet.fields import LOCAL
from googlenet.io import checkpoint, named, pretrained
from googlenet.io.workdir import read_classes, write_text
from googlenet.model import ablations
from googlenet.model.precision import name_of
from googlenet.runtime.terminal import rounded
from googlenet.tools import operations, runs
from googlenet.tools.inference.about import data_name

SUMS = 'SHA256SUMS'
CARD = 'README.md'
# Files that are copied if the run has them.
_COPIED = ('classes.txt', 'metrics.jsonl', 'result.json')


def publish(
  run: str | os.PathLike[str],
  folder: str | os.PathLike[str],
  license: str = 'unknown',
  half: bool = False,
) -> pathlib.Path:
  """Writes the folder, completely or not at all.

  Args:
    run: workdir of a finished run, or of an imported network; or its name, see
      `named.find`.
    folder: path of a new or empty folder.
    license: of the parameters, for the model card, in Hugging Face's words.
    half: whether to store weights in two bytes.

  Returns:
    The path of the checkpoint in the folder.

  Raises:
    UserError: the training of `run` is not finished, its last checkpoint is
      damaged, or `folder` is not empty or cannot be made.
  """
  run, folder = pathlib.Path(named.find(run)), pathlib.Path(folder)
  config = config_lib.load(run / 'config.json', with_local=True)
  result = runs.read(str(run)).result
  if not result and not _is_imported(run):
    raise UserError(
      f'{run} is not finished, it has no complete result.json: continue it by '
      f'python launch.py --workdir={run}'
    )
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise UserError(
      f'{folder} exists already and is not overwritten: give a new folder'
    )
  source, restored = pretrained.read_run(run)
  if result and int(restored.step) != result.get('step'):
    raise UserError(
      f'{run}/result.json belongs to step {result.get("step", "?")}, but the '
      f'newest undamaged checkpoint to step {int(restored.step)}, which was '
      'not evaluated: delete result.json and continue the run by python '
      f'launch.py --workdir={run}'
    )
  params = restored.params
  if half:
    params = halved(params, name_of(config.train.precision))
  about = {'data': pretrained.stored_data(source)}
  defaults = config_lib.flatten(config_lib.default_config())
  config.update_from_flattened_dict({name: defaults[name] for name in LOCAL})
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
        params,
        restored.network_state,
        restored.step,
        about,
      )
      for name in _COPIED:
        if (run / name).is_file():
          shutil.copyfile(run / name, aside / name)
      names = read_classes(aside, config.model.num_classes)
      write_text(
        aside / CARD, card(folder.name, config, result, names, license)
      )
      write_text(aside / SUMS, sums(aside))
      os.replace(aside, folder)
  except OSError as error:
    if is_full(error):
      raise
    raise UserError(
      f'{folder} cannot be written ({error.strerror}): give another folder'
    ) from error
  return folder / path.relative_to(aside)


def _is_imported(run: pathlib.Path) -> bool:
  """Whether a run was never trained here, so that it has no result.json."""
  if (run / 'result.json').exists():  # damaged
    return False
  path, _ = pretrained.read_run(run)
  return not checkpoint.is_whole(path)


def halved(params: Any, precision: str) -> Any:
  """Returns parameters with kernels and matrices in two bytes.

  Scales, offsets and biases, few numbers, keep their dtype.

  Args:
    params: tree of float32 arrays.
    precision: of the run; for 'float32' the dtype is float16.

  Raises:
    UserError: float16 cannot hold a weight.
  """
  dtype = 'bfloat16' if precision == 'bfloat16' else 'float16'
  largest = float(jnp.finfo(dtype).max)

  def half(array: np.ndarray) -> np.ndarray:
    if array.ndim < 2:
      return array
    if np.abs(array).max() > largest:
      raise UserError(f'a weight is above {largest:g}: publish without --half')
    return checkpoint.halved(array, dtype)

  return jax.tree.map(half, params)


def sums(folder: pathlib.Path) -> str:
  """Returns the SHA-256 of each file of a run, as `sha256sum` prints it."""
  left_out = SUMS, CARD
  paths = (
    p for p in folder.rglob('*') if p.is_file() and p.name not in left_out
  )
  return ''.join(
    f'{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n'
    for name, path in sorted((str(p.relative_to(folder)), p) for p in paths)
  )


def card(
  name: str,
  config: ml_collections.ConfigDict,
  result: Mapping[str, Any],
  class_names: Sequence[str],
  license: str,
) -> str:
  """Returns the model card of a run: Markdown after YAML, which JSON is too.

  Args:
    name: of the network.
    config: of the run.
    result: content of result.json; empty for an imported network.
    class_names: of all classes.
    license: of the parameters.
  """
  dataset, split = data_name(config.data), config.data.eval_split
  metrics = [
    {'type': kind, 'name': words, 'value': result[key]}
    for key, kind, words in (
      ('eval/accuracy', 'accuracy', 'Accuracy'),
      ('eval/top_5', 'accuracy', 'Top-5 accuracy'),
      ('eval/loss', 'loss', 'Loss'),
    )
    if isinstance(result.get(key), float)
  ]
  task = {'type': 'image-classification'}
  scored = {
    'task': task,
    'dataset': {'name': dataset, 'type': dataset, 'split': split},
    'metrics': metrics,
  }
  table = f'| {dataset}, {split} | |\n|---|---|\n'
  table += ''.join(f'| {x["name"]} | {x["value"]:.4f} |\n' for x in metrics)
  head = {
    'license': license,
    'library_name': 'googlenet',
    'pipeline_tag': task['type'],
    'tags': ['image-classification', 'jax', 'haiku', 'googlenet'],
  }
  if metrics:
    head['metrics'] = ['accuracy']
    head['model-index'] = [{'name': name, 'results': [scored]}]
  front = '\n'.join(f'{key}: {json.dumps(x)}' for key, x in head.items())
  curves = ', `metrics.jsonl` the curves' if metrics else ''
  size = config.data.image_size
  return f"""---
{front}
---

# {name}

A network of the GoogLeNet family \
(`model.variant={ablations.describe(config.model)}`), \
{size}x{size} pixels, {len(class_names)} classes: {some(class_names)}.

{table if metrics else ''}
With the code of the project GoogLeNet in Haiku:

```python
import googlenet

net = googlenet.load('hf:OWNER/{name}')  # or the folder of these files
probabilities = net.predict(['photo.jpg'])
print(net.class_names[probabilities[0].argmax()])
```

`config.json` has the recipe{curves}. \
`sha256sum -c {SUMS}` checks the files.
"""


def main(argv: Sequence[str]) -> int:
  """Runs the command line and returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m googlenet.tools.publish',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('run', help='workdir of a finished run, or an import')
  parser.add_argument('folder', help='the new folder')
  parser.add_argument(
    '--license',
    default='unknown',
    help='licence of the parameters, for the model card, like apache-2.0',
  )
  parser.add_argument(
    '--half', action='store_true', help='store weights in two bytes'
  )
  operations.add_flag(parser)
  options = parser.parse_args(argv)
  with ending() as end:
    operations.register(options.operations)
    path = publish(options.run, options.folder, options.license, options.half)
    result = runs.read(named.find(options.run)).result
    scored = 'imported, without scores'
    if result:
      accuracy = rounded(result.get('eval/accuracy'))
      scored = f'step {result.get("step", "?")}, eval accuracy {accuracy}'
    size = path.stat().st_size / 1e6
    print(f'in       {options.folder}: {scored}, {size:.1f} MB')
  return end.code


if __name__ == '__main__':
  run_tool(main)
