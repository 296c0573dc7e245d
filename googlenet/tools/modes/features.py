"""--mode=features: writes end points of image files or of a data split."""

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from googlenet.data import find, pipeline
from googlenet.data.sources import Dataset
from googlenet.runtime.progress import Progress
from googlenet.tools.inference import (
  feature_files,
  outputs,
  predict,
  trained,
)
from googlenet.tools.inference.apply import check_end_points
from googlenet.tools.modes.predict import (
  check_all_read,
  count_images,
  none_read,
  warner,
)

Config = ml_collections.FrozenConfigDict
# The path or label of each image in a batch, and its end points: [n, ...] each.
Part = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]

FORMATS = {'.npz': 'npz', '.array_record': 'array_record'}


def run(
  config: Config,
  workdir: str,
  started: float,
  images: str = '',
  end_points: str = '',
  format: str = '',
  output: str = '',
) -> None:
  """Writes end points of every image, float32 [N, ...] by name.

  Each image is computed once, without the views of evaluation, since end points
  of different views cannot be averaged.

  Args:
    config: of the run; its `data` and `eval` sections may differ.
    workdir: of a trained run; nothing is written there.
    started: unused.
    images: see `data.find.find`; '': those of `data.eval_split`.
    end_points: names, separated by commas; '': the last stage.
    format: 'npz' or 'array_record'; '': given by the ending of `output`.
    output: path of a new file, which also holds the `path` of each image file
      or the `label` of each image of the split, as the
      data set has it: other data than those of training may have other classes.

  Raises:
    UserError: the checkpoint, images or an end point do not exist, or the
      output cannot be made; nothing is written.
    UnreadableImagesError: some images could not be read; the output holds the
      others.
  """
  del started
  outputs.check_one_process('features', jax.process_count())
  format = outputs.format_of(output, format, FORMATS)
  outputs.check_new(output)
  paths = find.find(images, sys.stdin) if images else []
  dataset = None if images else pipeline.load_split(config, 'eval_split')
  channels = pipeline.image_shape(config, dataset)[-1] if dataset else None
  net = trained.load_run(workdir, config, channels)
  names = [name for name in end_points.split(',') if name]
  names = tuple(dict.fromkeys(names)) or (
    net.network.architecture.stages[-1].name,
  )
  check_end_points(names, net.network, '--end_points')
  total = dataset.num_examples if dataset else len(paths)
  every = (
    _of_split(net, dataset, names) if dataset else _of_files(net, paths, names)
  )
  with contextlib.closing(every) as parts:
    first = next(parts, None)
    if first is None:
      raise none_read(total)
    start = time.perf_counter()
    with feature_files.WRITERS[format](output) as writer:
      for known, found in itertools.chain([first], parts):
        writer.write({**known, **found})
  later = writer.count - len(next(iter(first[1].values())))
  seconds = time.perf_counter() - start
  shapes = ', '.join(
    f'{name} {list(first[1][name].shape[1:])}' for name in names
  )
  print(
    f'features {output}: {shapes} of {count_images(writer.count)}'
    + (f', {later / seconds:,.0f} images/s' if later else '')
  )
  print(f'from     {net.path}: step {net.step:,}')
  check_all_read(writer.count, total)


def _of_files(
  net: trained.Trained, paths: list[str], names: tuple[str, ...]
) -> Iterator[Part]:
  with Progress('features', len(paths), 'images') as bar:
    given = net.read_batches(paths, warner(bar))
    for part, out in predict.run_batches(net.step_of(names), given):
      yield {'path': np.array(part)}, out
      bar.update(len(part))


def _of_split(
  net: trained.Trained, dataset: Dataset, names: tuple[str, ...]
) -> Iterator[Part]:
  given = predict.split_batches(net.config, dataset)
  for label, out in predict.run_batches(net.step_of(names), given):
    yield {'label': label}, out
