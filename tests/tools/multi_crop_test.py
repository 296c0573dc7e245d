"""Crops and averages, against a loop over images, scales and crops."""

import re

import jax
import numpy as np
import photos
import pytest
from PIL import Image
from saved_run import save_run

import googlenet
from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference import crops as crops_lib
from googlenet.tools.inference import trained
from googlenet.tools.modes import evaluate
from googlenet.tools.scoring import scores
from googlenet.tools.scoring.predictions import predict_split

SIZE, NUM_IMAGES = 28, 11


@pytest.fixture
def photos_config(config, photos_dir):
  config.data.source, config.data.name = 'tfds', 'photos'
  config.data.data_dir = str(photos_dir)
  config.data.eval_split = f'validation[:{NUM_IMAGES}]'
  config.data.image_size = SIZE
  config.data.mean, config.data.std = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
  config.model.num_classes = 4
  config.eval.batch_size = 4  # the last batch is padded
  return config


def member(config, seed):
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  params, state = init_from_numpy(network, (SIZE, SIZE, 3), seed)
  params = jax.tree.map(lambda w: 2 * w, params)  # less alike predictions
  return trained.Trained(
    '', config, network, 0, params, state, (SIZE, SIZE, 3), photos.CLASS_NAMES
  )


def reference_crops(image, crops):
  """All crops of one image, uint8 [crops, S, S, 3]: section 7 word by word."""
  out = []
  for side in (
    [round(SIZE * 8 / 7)]
    if crops == 10
    else [round(SIZE * part / 7) for part in (8, 9, 10, 11)]
  ):
    width, height = image.size
    short = min(width, height)
    sides = (side * width // short, side * height // short)
    resized = image.resize(sides, Image.Resampling.BILINEAR)
    for place in [0.5] if crops == 10 else [0.0, 0.5, 1.0]:
      left, top = (round(place * (length - side)) for length in sides)
      square = resized.crop((left, top, left + side, top + side))
      last, middle = side - SIZE, round((side - SIZE) / 2)
      views = [
        square.crop((x, y, x + SIZE, y + SIZE))
        for x, y in [(0, 0), (last, 0), (0, last), (last, last)]
        + [(middle, middle)]
      ]
      if crops == 144:
        views.append(square.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
      for view in views:
        out += [np.asarray(view), np.asarray(view)[:, ::-1]]
  assert len(out) == crops
  return np.stack(out)


def reference_probabilities(one, apply, pixels):
  x = pixels / 255 - np.array(one.config.data.mean)
  x = (x / np.array(one.config.data.std)).astype(np.float32)
  outputs, _ = apply(one.params, one.network_state, None, x, False)
  logits = np.asarray(outputs.logits, np.float64)
  exp = np.exp(logits - logits.max(-1, keepdims=True))
  return exp / exp.sum(-1, keepdims=True)


@pytest.mark.parametrize(
  ('num_members', 'crops'),
  [
    (1, 144),
    (2, 10),
    *(pytest.param(*x, marks=pytest.mark.slow) for x in ((1, 10), (2, 144))),
  ],
)
def test_scores_are_those_of_the_averaged_predictions(
  photos_config, crops, num_members
):
  photos_config.eval.crops = crops
  members = [member(photos_config, seed) for seed in range(num_members)]
  dataset = pipeline.load_split(members[0].config, 'eval_split')
  reader = dataset.read.read
  if reader._source is None:
    reader.open()
  applies = [jax.jit(one.network.apply, static_argnums=4) for one in members]
  losses, hits = [], []
  for index in range(NUM_IMAGES):
    example = reader._source[index]
    name = example['file_name']
    number = int(re.search(r'\d+', str(name))[0])
    # As stored, since a JPEG is not the image that was encoded.
    with photos.decode(example['image']) as image:
      pixels = reference_crops(image.convert('RGB'), crops)
    probabilities = np.mean(
      [
        reference_probabilities(one, apply, pixels).mean(0)
        for one, apply in zip(members, applies, strict=True)
      ],
      0,
    )
    label = number % len(photos.CLASS_NAMES)
    losses.append(-np.log(probabilities[label]))
    hits.append(np.argmax(probabilities) == label)
  on_devices = [
    one._replace(
      params=replicated(one.params),
      network_state=replicated(one.network_state),
    )
    for one in members
  ]
  found = predict_split(members[0].config, on_devices)
  found = scores.compute(found.probabilities, found.labels)
  assert found.count == NUM_IMAGES
  np.testing.assert_allclose(found.loss, np.mean(losses), rtol=2e-3)
  assert found.accuracy == pytest.approx(np.mean(hits), abs=1e-6)
  assert found.top_5 == 1


@pytest.mark.parametrize(('num_crops', 'count'), [(10, 1), (144, 3)])
def test_crops_are_cut_and_mirrored(num_crops, count):
  rng = np.random.default_rng(0)
  squares = rng.integers(0, 256, (2, count, 7, 7, 3), np.uint8)
  crops, *whole = crops_lib.cut(squares, num_crops, 4)
  places = [(0, 0), (0, 3), (3, 0), (3, 3), (2, 2)]  # 1.5 is rounded to 2
  expected = [
    squares[:, i, top : top + 4, left : left + 4]
    for i in range(count)
    for top, left in places
  ]
  expected += [view[:, :, ::-1] for view in expected]
  np.testing.assert_array_equal(crops, expected)
  if num_crops == 10:
    assert not whole
    return
  expected = list(squares.swapaxes(0, 1))
  expected += [view[:, :, ::-1] for view in expected]
  np.testing.assert_array_equal(whole[0], expected)


def test_the_sizes_are_those_of_the_paper():
  sides = [[one.side for one in crops_lib.squares(n, 224)] for n in (10, 144)]
  assert sides == [[256], [256, 288, 320, 352]]
  for crops, protocol in crops_lib.PROTOCOLS.items():
    per_square = 2 * (5 + protocol.with_whole)
    squares = len(protocol.sevenths) * protocol.num_squares
    assert crops == squares * per_square
    assert FIELDS['eval.crops'].is_valid(crops)


@pytest.mark.parametrize('crops', [10, 144])
def test_files_are_predicted_as_the_split_is_scored(
  photos_config, tmp_path, crops
):
  """By their paths: the crops are cut out of the whole photos."""
  photos_config.eval.crops = crops
  photos_config.data.resize = 32
  config = config_lib.resolve(photos_config)
  dataset = pipeline.load_split(config, 'eval_split')
  run = save_run(
    tmp_path / 'run',
    photos_config,
    dataset.image_shape,
    class_names=photos.CLASS_NAMES,
  )
  net = googlenet.load(run)
  reader = dataset.read.read
  if reader._source is None:
    reader.open()
  paths = [tmp_path / f'{i}.jpg' for i in range(NUM_IMAGES)]
  for i, path in enumerate(paths):
    path.write_bytes(reader._source[i]['image'])
  expected = predict_split(config, [net]).probabilities
  np.testing.assert_allclose(net.predict(paths), expected, atol=1e-6)
  assert np.abs(net.predict(paths, views=False) - expected).max() > 1e-3
  pixels = net.read(paths)
  with pytest.raises(
    UserError, match=r'eval\.crops=.*whole files.*views=False'
  ):
    net.predict(pixels)
  np.testing.assert_allclose(
    net.predict(pixels, views=False),
    net.predict(paths, views=False),
    atol=1e-6,
  )


def test_networks_that_see_other_images_are_not_averaged(photos_config):
  first = config_lib.resolve(photos_config)
  with photos_config.unlocked():
    photos_config.data.mean = (0.1,)
  evaluate._check_same_images(
    first, 'a', 'b', config_lib.resolve(photos_config)
  )
  photos_config.data.image_size = 32
  text = r'config\.data\.image_size is 28 in a and 32 in b, .*leave out one'
  with pytest.raises(config_lib.UserError, match=text):
    evaluate._check_same_images(
      first, 'a', 'b', config_lib.resolve(photos_config)
    )
