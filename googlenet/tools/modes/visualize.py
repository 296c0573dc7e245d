"""--mode=visualize: images that excite channels, classes and layers most."""

import time

import jax
import ml_collections
import numpy as np

from googlenet.data import files as image_files
from googlenet.errors import UserError
from googlenet.tools.inference import outputs, trained
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers
from googlenet.tools.visualize import dream, files, forward, render, requests
from googlenet.tools.visualize.objectives import Objective
from googlenet.tools.visualize.rendered import MAX_SIDE, Rendered

Config = ml_collections.FrozenConfigDict

_LONGEST = 512  # pixels of the long side of a dream


def run(
  config: Config,
  workdir: str,
  started: float,
  others: tuple[tuple[str, Config], ...] = (),
  channels: str = '',
  objective: str = '',
  image: str = '',
  steps: int = 0,
  seed: int = 0,
  size: int = 0,
  frames: int = 0,
  output: str = '',
) -> None:
  """Makes images that excite channels, classes or layers most.

  With `image` they begin with a photo (DeepDream), else with noise.

  Args:
    config: of the run.
    workdir: of a trained run; nothing is written there.
    started: unused.
    others: workdirs and configs of further runs, shown beside the first.
    channels: see `requests.parse`.
    objective: 'channel', 'neuron' (the channel in the centre), 'layer' or
      'caricature'; '': 'channel', or 'layer' for points without a channel if
      there is an `image`.
    image: path of a photo; '': none.
    steps: of the ascent, for a photo at each of its sizes; 0: 256, or 10.
    seed: fixes noise and movements.
    size: of the images in pixels, for a photo that of its long side; 0: the
      network's, or 512.
    frames: number of images on the way to keep; 0: none, or 24 for a .gif.
    output: new file or folder, see `tools.visualize.files`.

  Raises:
    UserError: a flag is wrong, a run lacks a point or has no checkpoint, or
      the output cannot be made; nothing is written.
  """
  del started
  outputs.check_one_process('visualize', jax.process_count())
  requests.check_kind(objective, image)
  check_numbers(
    **{'--steps': (steps, 0), '--seed': (seed, 0, MAX_SEED)},
    **{'--size': (size, 0, MAX_SIDE), '--frames': (frames, 0)},
  )
  most = steps or (dream.STEPS if image else render.STEPS)
  form, frames = files.check(output, frames, most)
  runs = [(workdir, config), *others]
  nets = [trained.load_run(folder, own) for folder, own in runs]
  folders = [folder for folder, _ in runs]
  asked = requests.parse(channels, nets, folders, objective, bool(image))
  start = time.perf_counter()
  found = []
  for (folder, _), net, wanted in zip(runs, nets, asked, strict=True):
    if image and objective != 'caricature':
      made = _dreams(net, wanted, objective, image, steps, seed, size, frames)
    else:
      targets = {}
      if objective == 'caricature':
        targets = _targets(net, wanted, image, size)
      parts, order = requests.objectives_of(wanted, objective, targets)
      made = render.render(
        net,
        parts,
        steps=steps or render.STEPS,
        size=size or None,
        seed=seed,
        num_frames=frames,
      )
      made = requests.in_order(made, order)
    _check_finite(net, made)
    found.append(files.Of(folder, made))
  seconds = time.perf_counter() - start
  outputs.check_new(output)  # again, since this took a while
  files.write(output, form, found)
  count = sum(len(made.images) for _, made in found)
  images = found[0].made.images
  print(
    f'{form:8} {output}: {count:,} image{"" if count == 1 else "s"} of '
    f'{images.shape[1]}x{images.shape[2]} pixels{_enlarged(images, form)}, '
    f'{found[0].made.curves.shape[1]} steps each, {seconds:.1f} s'
  )
  for net in nets:
    print(f'from     {net.path}: step {net.step:,}')


def _enlarged(images: np.ndarray, form: str) -> str:
  """Says how much larger a sheet shows its images."""
  times = files.sheet.factor(*images.shape[1:3])
  if form == 'arrays' or times == 1:
    return ''
  return f' (shown {times} times as large, each pixel as a square)'


def _check_finite(net: trained.Trained, made: Rendered) -> None:
  if not np.isfinite(made.values).all():
    raise UserError(f'{net.path}: the maps of these parameters are not finite')


def _dreams(
  net: trained.Trained,
  wanted: list[requests.Request],
  objective: str,
  image: str,
  steps: int,
  seed: int,
  size: int,
  frames: int,
) -> Rendered:
  """Dreams of one photo, one for each request."""
  photo = dream.read_photo(net, image, size or _LONGEST)

  def of(part: Objective) -> Rendered:
    return dream.dream(
      net,
      photo,
      part,
      steps=steps or dream.STEPS,
      seed=seed,
      num_frames=frames,
    )

  parts, order = requests.objectives_of(wanted, objective)
  made = Rendered.join(
    [of(part) for part in parts], [name for p in parts for name in p.names]
  )
  return requests.in_order(made, order)


def _targets(
  net: trained.Trained,
  wanted: list[requests.Request],
  image: str,
  size: int,
) -> dict[str, np.ndarray]:
  """Returns the map of a photo at each point, float32 [1, ...]."""
  side, _, channels = net.image_shape
  side = size or side
  image_files.check_channels(channels)
  squeezed = image_files.Squeezed((side, side))
  reader = image_files.Reader(squeezed, channels, tells=True)
  (item,) = image_files.read_ahead([image], reader, 1)
  if item.image is None:
    trained.refuse(item)
  names = tuple(dict.fromkeys(request.point for request in wanted))
  net = forward.prepared(net, names)
  forward.check_size(net, side, side)
  program = jax.jit(
    forward.make_forward(net.network, net.config.data, names),
    static_argnums=3,
  )
  pixels = np.asarray(item.image[None], np.float32)
  found = program(net.params, net.network_state, pixels, None)
  return {name: np.asarray(y) for name, y in found.items()}
