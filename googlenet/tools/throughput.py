"""Measures the images per second of the input pipeline, without a network.

  python -m googlenet.tools.throughput
  python -m googlenet.tools.throughput --name=imagenet2012 --workers=0,8,16

Without --name it makes a TFDS data set in a temporary folder, of JPEGs like
those of ImageNet (500x375 pixels, about 110 kB, spectrum of photographs).
"""

import argparse
import bisect
import io
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import ml_collections
import numpy as np
from PIL import Image

from googlenet.cli import process
from googlenet.data import batches, images, sources
from googlenet.data.stream import stream
from googlenet.errors import UserError

_CROP_AREA, _CROP_ASPECT = (0.08, 1.0), (0.75, 1.3333)
_SIZES = ((500, 375), (500, 375), (500, 333), (375, 500))  # width, height
_NUM_FILES, _NUM_DIFFERENT, _FILE_KB, _BATCH_SIZE = 512, 64, 110, 128


def natural_jpeg(seed: int) -> bytes:
  """Returns a JPEG of about 110 kB with the 1/f amplitudes of photographs."""
  rng = np.random.default_rng(seed)
  width, height = _SIZES[seed % len(_SIZES)]
  frequency = np.hypot(
    np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
  )
  frequency[0, 0] = 1
  planes = []
  for contrast in (50, 12, 12):  # Y, Cb, Cr
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency
    plane = np.fft.irfft2(spectrum, (height, width))
    plane = 128 + contrast * (plane - plane.mean()) / plane.std()
    planes.append(Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8)))
  image = Image.merge('YCbCr', planes)

  def encode(quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, 'jpeg', quality=quality)
    return stream.getvalue()

  enough = bisect.bisect(
    range(100), _FILE_KB * 1000, key=lambda quality: len(encode(quality))
  )
  return encode(min(enough, 99))


def write_natural(folder: pathlib.Path) -> None:
  """Writes the TFDS data set `natural` to a folder."""
  import tensorflow_datasets as tfds

  class Natural(tfds.core.GeneratorBasedBuilder):
    """Noise with the spectrum of photographs."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
      features = {
        'image': tfds.features.Image(encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(num_classes=1),
      }
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
      return {'train': self._generate_examples()}

    def _generate_examples(self) -> Iterator:
      contents = [natural_jpeg(i) for i in range(_NUM_DIFFERENT)]
      for i in range(_NUM_FILES):
        image = io.BytesIO(contents[i % _NUM_DIFFERENT])
        yield i, {'image': image, 'label': 0}

  tfds.disable_progress_bar()
  builder = Natural(data_dir=folder, file_format='array_record')
  builder.download_and_prepare()


def measure(
  dataset: sources.Dataset, num_workers: int, num_images: int
) -> tuple[float, float]:
  """Times the batches of a stream, without the first.

  Returns:
    Images/s, and the CPU seconds of this process per image. With
    `num_workers=0` a thread of it does all the work; otherwise this process
    only receives the results of the workers.
  """
  num_batches = 1 + max(num_images // _BATCH_SIZE, 1)
  # Repeats the data set if it is smaller.
  index_batches = batches.TrainIndices(
    0, dataset.num_examples, _BATCH_SIZE, 0, num_batches
  )
  given = stream(dataset, index_batches, (0, 1), num_workers)
  next(given)  # starts the processes and opens the files
  started, started_core = time.perf_counter(), time.process_time()
  count = sum(len(labels) for _, labels in given)
  core = time.process_time() - started_core
  return count / (time.perf_counter() - started), core / count


def run(arguments: argparse.Namespace, data_dir: str) -> None:
  """Measures all combinations and prints the table."""
  size = arguments.image_size
  config = ml_collections.ConfigDict(
    {
      'source': 'tfds',
      'name': arguments.name or 'natural',
      'data_dir': data_dir,
      'image_size': size,
    }
  )
  transforms = {
    'random resized crop': images.RandomResizedCrop(
      size, _CROP_AREA, _CROP_ASPECT, 0
    ),
    'centre crop': images.CenterCrop(size, round(size * 8 / 7)),
  }
  print(f'{config.name}, {size}x{size}')
  print(f'{"":20}  {"read by":13} images/s  core ms *')
  for name, transform in transforms.items():
    dataset = sources.load_dataset(config, arguments.split, transform)
    if dataset.num_examples < _BATCH_SIZE:
      raise UserError(
        f'--split={arguments.split} has {dataset.num_examples} images: choose '
        f'one of at least {_BATCH_SIZE}'
      )
    for num_workers in arguments.workers:
      rate, core = measure(dataset, num_workers, arguments.images)
      who = f'{num_workers} process(es)' if num_workers else 'a thread'
      print(f'{name:20}  {who:13} {rate:8.0f} {1e3 * core:10.2f}', flush=True)
  print('* CPU milliseconds of this process per image')


def _whole_number(low: int) -> Callable[[str], int]:
  def parse(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < low:
      raise argparse.ArgumentTypeError(
        f'{text!r} is not a whole number from {low}'
      )
    return int(text)

  return parse


def main(argv: list[str]) -> int:
  """Runs the command line and returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m googlenet.tools.throughput',
    description='Measures the images per second of the input pipeline.',
    allow_abbrev=False,
  )
  parser.add_argument('--name', default='', help='a prepared TFDS data set')
  parser.add_argument(
    '--data_dir', default='', help="folder of the set; '': default of TFDS"
  )
  parser.add_argument('--split', default='train')
  parser.add_argument('--image_size', type=_whole_number(1), default=224)
  parser.add_argument(
    '--images', type=_whole_number(1), default=2048, help='how many to time'
  )
  parser.add_argument(
    '--workers',
    type=lambda text: [_whole_number(0)(part) for part in text.split(',')],
    default=[0, 1, 2],
    help='numbers of worker processes to try, like 0,1,2; 0: a thread',
  )
  arguments = parser.parse_args(argv)
  with process.ending() as end:
    if arguments.name:
      run(arguments, arguments.data_dir)
    else:
      with tempfile.TemporaryDirectory() as folder:
        write_natural(pathlib.Path(folder))
        run(arguments, folder)
  return end.code


if __name__ == '__main__':
  process.run_tool(main)
