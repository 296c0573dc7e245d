"""A small image-classification set as ImageNet is stored: JPEGs by TFDS."""

import io
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

CLASS_NAMES = ('red', 'green', 'blue', 'grey')
NUM_TRAIN, NUM_VALIDATION = 200, 37
# (width, height): wide, upright, square, long, tiny, large enough for a decoder
# to take a shortcut.
SIZES = [(60, 45), (45, 60), (50, 50), (150, 30), (9, 14), (400, 300)]


def photo(index: int) -> Image.Image:
  """Returns image `index`, whose hue and brightness tell its class.

  The modes are those found in ImageNet (RGB, grey, CMYK) and with alpha.
  """
  rng = np.random.default_rng(index)
  width, height = SIZES[index % len(SIZES)]
  label = index % len(CLASS_NAMES)
  blocks = rng.integers(0, 90, (5, 7, 3), dtype=np.uint8)
  blocks[..., label if label < 3 else slice(None)] += 120
  image = Image.fromarray(blocks).resize((width, height), Image.BICUBIC)
  if label == 3:
    return image.convert('L')
  return image.convert(['RGB', 'RGB', 'RGB', 'CMYK', 'RGBA'][index % 5])


def encode(image: Image.Image) -> bytes:
  """Returns a JPEG, or a PNG where a JPEG cannot hold the image."""
  stream = io.BytesIO()
  image.save(stream, 'png' if image.mode == 'RGBA' else 'jpeg', quality=95)
  return stream.getvalue()


class Photos(tfds.core.GeneratorBasedBuilder):
  """Images of differing sizes and modes, with their file names."""

  VERSION = tfds.core.Version('1.0.0')
  DAMAGED = None  # the number of an image of which a half is missing

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(encoding_format='jpeg'),
          'label': tfds.features.ClassLabel(names=CLASS_NAMES),
          'file_name': tfds.features.Text(),
        }
      ),
    )

  def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
    return {
      'train': self._generate_examples(0, NUM_TRAIN),
      'validation': self._generate_examples(NUM_TRAIN, NUM_VALIDATION),
    }

  def _generate_examples(self, start: int, size: int) -> Iterator:
    for i in range(start, start + size):
      contents = encode(photo(i))
      if i == self.DAMAGED:
        contents = contents[: len(contents) // 2]
      yield (
        i,
        {
          'image': io.BytesIO(contents),
          'label': i % len(CLASS_NAMES),
          'file_name': f'photo_{i}.jpg',
        },
      )


class DamagedPhotos(Photos):
  """The same, one image cut off."""

  DAMAGED = 5


def prepare(builder_cls: type, folder: pathlib.Path) -> pathlib.Path:
  """Writes a data set below `folder` and returns its own folder."""
  tfds.disable_progress_bar()
  builder = builder_cls(data_dir=folder, file_format='array_record')
  builder.download_and_prepare()
  return pathlib.Path(builder.data_dir)


def flags(folder: pathlib.Path, name: str = 'photos') -> list[str]:
  """Flags that train on random crops of a set that was written to `folder`."""
  return [
    '--config.data.source=tfds',
    f'--config.data.name={name}',
    f'--config.data.data_dir={folder}',
    '--config.data.eval_split=validation',
    '--config.data.resize=32',
    '--config.data.mean=(0.5,0.5,0.5)',
    '--config.augment.random_resized_crop=true',
    '--config.augment.flip=true',
  ]


def decode(encoded: bytes) -> Image.Image:
  """Opens a stored image, without any shortcut."""
  image = Image.open(io.BytesIO(encoded))
  image.load()
  return image
