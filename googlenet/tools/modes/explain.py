"""--mode=explain: which pixels, positions and channels a decision is from."""

import contextlib
import sys
import time
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np

from googlenet.data import files, find, pipeline
from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.runtime.progress import Progress
from googlenet.tools.explain import files as writers
from googlenet.tools.explain import methods
from googlenet.tools.explain import target as target_lib
from googlenet.tools.explain.files import Part
from googlenet.tools.explain.methods import Explained, Options
from googlenet.tools.inference import outputs, trained
from googlenet.tools.modes.predict import (
  check_all_read,
  count_images,
  none_read,
  printable,
  warner,
)

Config = ml_collections.FrozenConfigDict

FORMATS = {'.html': 'html', '.png': 'png', '.npz': 'npz'}
_DEFAULT = 'grad_cam,integrated_gradients'
_STEPS = 64
# Images in one picture, and in a page, which browsers hold in memory.
_MOST = {'png': 32, 'html': 500}
_BATCH = 16  # images between two steps of the progress bar


def run(
  config: Config,
  workdir: str,
  started: float,
  images: str = '',
  image_index: int = 0,
  num_images: int = 4,
  method: str = '',
  layer: str = '',
  block: str = '',
  baseline: str = '',
  steps: int = 0,
  window: int = 0,
  stride: int = 0,
  seed: int = 0,
  sanity: bool = False,
  format: str = '',
  output: str = '',
  **score: str,
) -> None:
  """Writes a page, a picture or arrays that explain decisions.

  Args:
    config: of the run; its `data` section may differ.
    workdir: of a trained run; nothing is written there.
    started: unused.
    images: see `data.find.find`; '': those of `data.eval_split`.
    image_index: the first image of the split.
    num_images: how many images of the split.
    method: names of `methods.METHODS` and `methods.TABLES`, separated by
      commas; '': `grad_cam` and `integrated_gradients`.
    layer: see `methods.Options`, as the next six.
    block: see above.
    baseline: see above.
    steps: see above; 0: 64.
    window: see above.
    stride: see above.
    seed: see above.
    sanity: whether maps are compared with those of randomized networks.
    format: 'html', 'png' or 'npz'; '': given by the ending of `output`.
    output: path of a new file.
    **score: `class` and `against`, see `target.resolve`.

  Raises:
    UserError: the checkpoint, an image, a class or a method does not exist, an
      option is not allowed or has no effect, or the output cannot be made;
      nothing is written.
    UnreadableImagesError: some images could not be read; the output holds the
      others.
  """
  del started
  outputs.check_one_process('explain', jax.process_count())
  format = outputs.format_of(output, format, FORMATS)
  outputs.check_new(output)
  names = methods.parse(method or _DEFAULT)
  if sanity and not any(name in methods.METHODS for name in names):
    raise UserError(
      '--sanity compares maps: add one of '
      f'{", ".join(methods.METHODS)} to --method'
    )
  methods.check_used(
    names,
    {
      'layer': layer,
      'block': block,
      'baseline': baseline,
      'steps': steps,
      'window': window,
      'stride': stride,
    },
  )
  paths = find.find(images, sys.stdin) if images else []
  dataset = None if images else pipeline.load_split(config, 'eval_split')
  places = _places(dataset, image_index, num_images) if dataset else range(0)
  total = len(places) if dataset else len(paths)
  if total > _MOST.get(format, total):
    raise UserError(
      f'--output={output}: it shows up to {_MOST[format]} images, and there '
      f'are {total:,}; give fewer, or write arrays (.npz)'
    )
  channels = pipeline.image_shape(config, dataset)[-1] if dataset else None
  net = trained.load_run(workdir, config, channels)
  target = target_lib.resolve(
    (score.get('class') or None, score.get('against') or None),
    net.class_names,
    ('--class', '--against'),
  )
  shape = dataset.image_shape if dataset else net.stored_shape
  options = Options(
    layer,
    block,
    baseline,
    steps or _STEPS,
    window=window,
    stride=stride,
    seed=seed,
  )
  options = methods.check(net.network, shape, names, options)

  def explained(pixels: np.ndarray) -> Explained:
    return methods.explain(net, pixels, target, names, options, sanity)

  start = time.perf_counter()
  with Progress('explain ', total, 'images') as bar:
    given = (
      _of_split(dataset, places, net.class_names)
      if dataset
      else _of_files(net, paths, bar)
    )
    with contextlib.closing(given):
      parts = (_part(*one, explained, bar) for one in given)
      count = writers.WRITERS[format](output, parts, net, names)
  if not count:
    raise none_read(total)
  seconds = time.perf_counter() - start
  print(
    f'explain  {output}: {", ".join(names)} of {count_images(count)}, '
    f'{seconds:.1f} s'
  )
  print(f'from     {net.path}: step {net.step:,}, float32, one view')
  check_all_read(count, total)


def _places(dataset: Dataset, first: int, count: int) -> range:
  """Returns the images of a split that are explained."""
  if not 0 <= first < dataset.num_examples:
    raise UserError(
      f'--image_index={first}: config.data.eval_split={dataset.split!r} has '
      f'{dataset.num_examples:,} images; allowed is 0 to '
      f'{dataset.num_examples - 1}'
    )
  if count < 1:
    raise UserError(
      f'--num_images={count} is not allowed: it takes a whole number from 1'
    )
  return range(first, min(first + count, dataset.num_examples))


# Titles, arrays and pixels of a batch.
_Given = tuple[list[str], dict[str, np.ndarray], np.ndarray]


def _of_split(
  dataset: Dataset, places: range, class_names: tuple[str, ...]
) -> Iterator[_Given]:
  for start in range(0, len(places), _BATCH):
    chosen = np.array(places[start : start + _BATCH])
    pixels, labels = dataset.read(chosen)
    names = [class_names[k] if k < len(class_names) else str(k) for k in labels]
    titles = [
      f'Image {i}: {name}' for i, name in zip(chosen, names, strict=True)
    ]
    known = {'image_index': chosen, 'label': np.asarray(labels, np.int32)}
    yield titles, known, np.asarray(pixels)


def _of_files(
  net: trained.Trained, paths: list[str], bar: Progress
) -> Iterator[_Given]:
  items = files.read_ahead(paths, net.reader(), 2 * _BATCH)
  with contextlib.closing(items):
    for part, pixels in files.batches(items, _BATCH, warner(bar)):
      yield [printable(p) for p in part], {'path': np.array(part)}, pixels


def _part(titles, known, pixels, explained, bar: Progress) -> Part:
  part = Part(titles, known, explained(pixels))
  if not np.isfinite(part.explained.logits).all():
    raise UserError(
      'the logits of these parameters are not finite: there is nothing to '
      'explain'
    )
  bar.update(len(titles))
  return part
