"""As a new user: odd photographs, from a training that dies to an export."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, environment
from PIL import Image
from run_files import assert_same_run, losses, problems

import googlenet
from googlenet.io import checkpoint

COLOURS = {
  'ball': (200, 40, 40),
  'box 2': (40, 180, 60),
  'box 10': (40, 60, 200),
}
PER_CLASS = {'train': (24, 16, 8), 'test': (6, 6, 6)}
FLAGS = (
  f'--config={ROOT}/configs/fmnist96.py',
  '--config.model.variant=tiny',
  '--config.model.kernels=xla',
  '--config.data.source=folder',
  '--config.data.data_dir=photos',
  '--config.data.image_size=28',
  '--config.data.resize=32',
  '--config.data.mean=auto',
  '--config.data.std=auto',
  '--config.data.workers=1',
  '--config.augment.random_resized_crop=true',
  '--config.train.batch_size=12',
  '--config.train.precision=float32',
  '--config.train.epochs=20',
  '--config.train.sampling=balanced',
  '--config.optimizer.warmup_steps=2',
  '--config.logging.every_steps=2',
  '--config.logging.images=0',
  '--config.eval.every_epochs=10',
  '--config.checkpoint.every_steps=10',
)
SKIP = '--config.data.on_bad_image=skip'
# The smallest pipe of Linux: a program that nobody reads stops soon.
PIPE_BYTES = 4096


def photograph(rng, colour) -> Image.Image:
  """A noisy background with a thing of a colour, of any size."""
  height, width = rng.integers(40, 80, 2)
  pixels = rng.normal(120, 20, (height, width, 3))
  inside = np.s_[height // 4 : -height // 4, width // 4 : -width // 4]
  pixels[inside] = colour + rng.normal(0, 10, pixels[inside].shape)
  return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def save(image: Image.Image, folder: pathlib.Path, i: int) -> None:
  """Stores photograph i of a class in one of eight odd ways."""
  moving = {
    'save_all': True,
    'append_images': [Image.new('RGB', image.size), image.rotate(90)],
  }
  turned = Image.Exif()
  turned[274] = 6
  luma = np.asarray(image.convert('L')).astype(np.uint16)
  forms = (
    lambda: image.save(folder / f'{i}.JPG', exif=turned),
    lambda: image.convert('CMYK').save(folder / f'{i}.jpeg'),
    lambda: image.convert('P').save(folder / f'{i}.png'),
    lambda: image.save(folder / f'{i}.gif', **moving),
    lambda: image.save(folder / f'{i}.webp', **moving),
    lambda: image.convert('RGBA').save(folder / f'{i}.png'),
    lambda: image.save(folder / f'{i}.tif'),
    lambda: Image.fromarray(luma * 257).save(folder / f'{i}.png'),
  )
  forms[i % len(forms)]()


@pytest.fixture
def photos(tmp_path) -> pathlib.Path:
  rng = np.random.default_rng(0)
  for split, counts in PER_CLASS.items():
    for count, (name, colour) in zip(counts, COLOURS.items(), strict=True):
      folder = tmp_path / 'photos' / split / name
      folder.mkdir(parents=True)
      for i in range(count):
        save(photograph(rng, colour), folder, i)
  whole = (tmp_path / 'photos/train/ball/6.tif').read_bytes()
  (tmp_path / 'photos/train/ball/broken.tif').write_bytes(whole[:1000])
  return tmp_path / 'photos'


def start(
  folder: pathlib.Path, *flags: str, devices: int = 1
) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, str(ROOT / 'launch.py'), *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=folder,
    env={**os.environ, **environment(devices)},
    pipesize=PIPE_BYTES,
  )


def launched(
  folder: pathlib.Path, *flags: str, code: int = 0, devices: int = 1
) -> str:
  """Returns what the program prints; what it says of problems, if it fails."""
  process = start(folder, *flags, devices=devices)
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == code, stderr
  return problems(stderr) if code else stdout


def kill_after_a_checkpoint(process: subprocess.Popen) -> None:
  """Ends it by SIGKILL when step 12 of 80 is told and step 10 is kept.

  The program cannot come to its end meanwhile: the pipe does not hold the lines
  of 68 more steps.
  """
  for line in process.stdout:
    if line.startswith('step 12/80'):
      break
  process.send_signal(signal.SIGKILL)
  # Ends when the worker has closed the pipe too, which it inherits.
  _, stderr = process.communicate(timeout=300)
  assert process.returncode == -signal.SIGKILL, stderr


@pytest.mark.slow
def test_odd_photographs_from_a_killed_training_to_an_export(
  photos, tmp_path, compilation_cache
):
  flags = (*FLAGS, f'--config.train.compilation_cache={compilation_cache}')
  refusal = launched(tmp_path, *flags, '--workdir=whole', code=2)
  assert 'ball/broken.tif cannot be read' in refusal
  assert 'data.on_bad_image=skip' in refusal
  assert not (tmp_path / 'whole').exists()

  told = launched(tmp_path, *flags, SKIP, '--workdir=whole')
  assert 'photos (folder): 48 train and 18 test images, 28x28x3' in told
  assert '1 left out that cannot be read: photos/train/ball/broken.tif' in told
  assert 'classes  ball 24 + 6, box 2 16 + 6, box 10 8 + 6' in told
  assert 'steps of 12 images, classes in turn; sgd' in told
  again = (*flags, SKIP, '--workdir=run')
  process = start(tmp_path, *again)
  kill_after_a_checkpoint(process)
  assert not (tmp_path / 'run/result.json').exists()
  assert checkpoint.paths(tmp_path / 'run')
  assert 'resumed  after step ' in launched(tmp_path, *again)
  assert_same_run(tmp_path / 'whole', tmp_path / 'run')
  launched(tmp_path, *flags, SKIP, '--workdir=four', devices=4)
  one, four = losses(tmp_path / 'whole'), losses(tmp_path / 'four')
  np.testing.assert_allclose(four, one, rtol=1e-2, atol=1e-4)

  accuracy = json.loads((tmp_path / 'run/result.json').read_text())
  told = launched(
    tmp_path,
    '--mode=evaluate',
    '--workdir=run',
    '--config.data.data_dir=photos',
  )
  assert f'photos test: accuracy {accuracy["eval/accuracy"]:.4f}' in told
  assert accuracy['eval/accuracy'] > 0.7  # 1/3 by chance
  launched(
    tmp_path,
    *('--mode=predict', '--workdir=run', '--images=photos/test'),
    *('--output=found.csv', '--top_k=1'),
  )
  rows = (tmp_path / 'found.csv').read_text().splitlines()[1:]
  found = dict(row.split(',')[:2] for row in rows)
  right = [
    name == pathlib.Path(path).parent.name for path, name in found.items()
  ]
  assert np.mean(right) == pytest.approx(accuracy['eval/accuracy'])
  exports_name_the_same_classes(tmp_path, found)


def exports_name_the_same_classes(folder, found: dict[str, str]) -> None:
  """Exports, and compares with the classes that `predict` has written."""
  export = ('--mode=export', '--workdir=run')
  launched(folder, *export, '--output=net.safetensors')
  net = googlenet.load(folder / 'net.safetensors')
  images = net.read([folder / path for path in found])
  expected = [net.class_names.index(name) for name in found.values()]
  np.testing.assert_array_equal(net.predict(images).argmax(1), expected)

  for package in ('onnx', 'onnxruntime'):
    pytest.importorskip(package, reason='pip install onnx onnxruntime')
  import onnxruntime

  launched(folder, *export, '--output=net.onnx')
  session = onnxruntime.InferenceSession(folder / 'net.onnx')
  about = session.get_modelmeta().custom_metadata_map
  assert json.loads(about['class_names']) == list(COLOURS)
  logits, _ = session.run(None, {'images': images})
  np.testing.assert_array_equal(logits.argmax(1), expected)
