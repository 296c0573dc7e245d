"""The table of methods, and what they give for a batch of images."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from googlenet.errors import UserError, did_you_mean
from googlenet.model.network import Network
from googlenet.tools.explain import (
  baselines,
  cam,
  engine,
  gradients,
  occlusion,
  parts,
  sanity,
)
from googlenet.tools.explain import target as target_lib
from googlenet.tools.explain.gradients import Integrated
from googlenet.tools.explain.target import Target
from googlenet.tools.inference import insight
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers
from googlenet.tools.inference.trained import Trained


class Options(NamedTuple):
  """What methods take; each uses a part of it.

  Attributes:
    layer: map of `grad_cam` and `channels`; '': the last one.
    block: block of `branches`; '': all blocks.
    baseline: key of `BASELINES`; '': the default of each method.
    steps: gradients of `integrated_gradients` at first, or samples of
      `smoothgrad`.
    tolerance: of `integrated_gradients`.
    window: of `occlusion`, in pixels; 0: an eighth of the image.
    stride: of `occlusion`, in pixels; 0: half a window.
    seed: of the noise of `smoothgrad` and of randomized parameters.
  """

  layer: str = ''
  block: str = ''
  baseline: str = ''
  steps: int = 64
  tolerance: float = 0.01
  window: int = 0
  stride: int = 0
  seed: int = 0


_MAX_STEPS = 100_000
# How a map is shown: with its sign, as a magnitude, from its smallest to its
# largest value, or with its sign but without its mean.
SIGNED, MAGNITUDE, POSITIVE, CENTRED = (
  *('signed', 'magnitude', 'positive'),
  'centred',
)
_Explain = Callable[
  [Trained, np.ndarray, Target, Options], np.ndarray | Integrated
]


class Method(NamedTuple):
  """A method that gives a map for each image.

  Attributes:
    explain: gives maps float32 [N, H, W, C] or [N, h, w].
    title: in words.
    text: what a value is.
    paper: where the method is from.
    shows: one of `SIGNED`, `MAGNITUDE`, `POSITIVE`, `CENTRED`.
  """

  explain: _Explain
  title: str
  text: str
  paper: str
  shows: str = SIGNED


METHODS: dict[str, Method] = {
  'gradient': Method(
    lambda net, x, target, o: gradients.gradient(net, x, target),
    'Gradient',
    'change of the score for one grey level of a pixel, as a magnitude',
    'Simonyan et al., 2013, arXiv 1312.6034',
    MAGNITUDE,
  ),
  'input_x_gradient': Method(
    lambda net, x, target, o: gradients.input_x_gradient(net, x, target),
    'Input x gradient',
    'pixel times its gradient; black pixels have none',
    'Shrikumar et al., 2016, arXiv 1605.01713',
  ),
  'smoothgrad': Method(
    lambda net, x, target, o: gradients.smoothgrad(
      net, x, target, samples=o.steps, seed=o.seed
    ),
    'SmoothGrad',
    'mean gradient of noisy copies of the image, as a magnitude',
    'Smilkov et al., 2017, arXiv 1706.03825',
    MAGNITUDE,
  ),
  'integrated_gradients': Method(
    lambda net, x, target, o: gradients.integrated_gradients(
      net, x, target, o.baseline or 'black', o.steps, o.tolerance
    ),
    'Integrated gradients',
    'part of a pixel in the difference of scores of image and baseline',
    'Sundararajan et al., 2017, arXiv 1703.01365',
  ),
  'grad_cam': Method(
    lambda net, x, target, o: cam.grad_cam(net, x, target, o.layer),
    'Grad-CAM',
    'positions of a map that speak for the class; shown from the smallest to '
    'the largest value',
    'Selvaraju et al., 2017, arXiv 1610.02391',
    POSITIVE,
  ),
  'class_activation_map': Method(
    lambda net, x, target, o: cam.class_activation_map(net, x, target),
    'Class activation map',
    'evidence at a position of the last map, shown without its mean, which is '
    'in the score',
    'Zhou et al., 2016, arXiv 1512.04150',
    CENTRED,
  ),
  'occlusion': Method(
    lambda net, x, target, o: occlusion.occlusion(
      net, x, target, o.window, o.stride, o.baseline or 'mean'
    ),
    'Occlusion',
    'drop of the score where a square covers the image',
    'Zeiler and Fergus, 2013, arXiv 1311.2901',
  ),
}
# Methods that give a table of parts of the network instead of a map.
TABLES: dict[str, str] = {
  'branches': 'Branches',
  'channels': 'Channels',
}


class Table(NamedTuple):
  """What parts of the network add to the score of each image.

  Attributes:
    names: of the parts, [P].
    gradient: activation times gradient, float32 [N, P].
    ablation: drop of the score without the part, float32 [N, P].
  """

  names: tuple[str, ...]
  gradient: np.ndarray
  ablation: np.ndarray


class Explained(NamedTuple):
  """The explanations of a batch of images.

  Attributes:
    images: as they were given, [N, H, W, C].
    logits: float32 [N, K].
    labels: index of the class that is explained, int [N].
    against: index of the class it is set against, or None.
    maps: [N, H, W, C] or [N, h, w], by name of the method.
    integrated: of `integrated_gradients`, if it was asked for.
    tables: by name of the method.
    sanity: rank correlation with maps of randomized networks, [N, L] for the
      layers of `sanity.layers`, by name of the method; empty if not wanted.
  """

  images: np.ndarray
  logits: np.ndarray
  labels: np.ndarray
  against: int | None
  maps: dict[str, np.ndarray]
  integrated: Integrated | None
  tables: dict[str, Table]
  sanity: dict[str, np.ndarray]


def parse(text: str, flag: str = '--method') -> tuple[str, ...]:
  """Returns the names of methods that are separated by commas.

  Raises:
    UserError: a method is unknown, or none is given.
  """
  known = [*METHODS, *TABLES]
  names = [name for name in text.split(',') if name]
  for name in names or ['']:
    if name not in known:
      raise UserError(
        f'{flag}={name} is no method{did_you_mean(name, known)}; allowed are '
        f'{", ".join(known)}, separated by commas'
      )
  return tuple(dict.fromkeys(names))


# The methods that use an option.
_USED_BY: dict[str, tuple[str, ...]] = {
  'layer': ('grad_cam', 'channels'),
  'block': ('branches',),
  'baseline': ('integrated_gradients', 'occlusion'),
  'steps': ('integrated_gradients', 'smoothgrad'),
  'window': ('occlusion',),
  'stride': ('occlusion',),
}


def check_used(names: Sequence[str], given: Mapping[str, str | int]) -> None:
  """Checks that some method uses each option that is given.

  Args:
    names: of the methods.
    given: flags by name; '' and 0 are not given.

  Raises:
    UserError: a flag has no effect.
  """
  for flag, value in given.items():
    users = _USED_BY[flag]
    if value and not set(users) & set(names):
      raise UserError(
        f'--{flag}={value} has no effect on --method={",".join(names)}: leave '
        f'it out, or add {" or ".join(users)} to --method'
      )


def check(
  network: Network,
  image_shape: Sequence[int],
  names: Sequence[str],
  options: Options,
) -> Options:
  """Checks options before anything is computed; returns them without aliases.

  Args:
    network: that is explained.
    image_shape: (H, W, C) of the images.
    names: of the methods.
    options: given by flags of the same names.

  Raises:
    UserError: an option is not allowed, or the network does not suit a method.
  """
  check_numbers(
    **{'--steps': (options.steps, 1, _MAX_STEPS)},
    **{'--seed': (options.seed, 0, MAX_SEED)},
  )
  if options.baseline:
    baselines.check(options.baseline)
  if options.block or 'branches' in names:
    insight.branch_channels(network, options.block or _blocks(network)[-1])
  if 'class_activation_map' in names and not insight.has_class_maps(network):
    raise UserError(
      '--method=class_activation_map: this network has no global mean before '
      'its logits; grad_cam takes every network'
    )
  if options.window or options.stride or 'occlusion' in names:
    occlusion.windows(options.window, options.stride, tuple(image_shape), '--')
  return options._replace(
    layer=cam.find_layer(network, options.layer, '--layer')
  )


def _blocks(network: Network) -> tuple[str, ...]:
  names = insight.block_names(network)
  if not names:
    raise UserError(
      '--method=branches: this network has no blocks that concatenate branches'
    )
  return names


def explain(
  net: Trained,
  images: np.ndarray,
  target: Target,
  names: Sequence[str],
  options: Options,
  with_sanity: bool = False,
) -> Explained:
  """Explains a batch of images by several methods.

  Args:
    net: a trained network.
    images: uint8 or float [N, H, W, C] in 0..255.
    target: what is explained.
    names: keys of `METHODS` or `TABLES`.
    options: see `check`.
    with_sanity: whether maps are compared with those of randomized networks.

  Raises:
    UserError: images or options are not allowed.
  """
  logits = engine.logits(net, images)
  labels = target_lib.labels(target, logits)
  maps, tables, tested, integrated = {}, {}, {}, None
  for name in names:
    if name in TABLES:
      tables[name] = _TABLES[name](net, images, target, options)
      continue
    found = METHODS[name].explain(net, images, target, options)
    if isinstance(found, Integrated):
      integrated, found = found, found.maps
    maps[name] = found
    if with_sanity:
      tested[name] = _sanity(net, images, labels, target, name, options)
  return Explained(
    images, logits, labels, target.against, maps, integrated, tables, tested
  )


def _sanity(
  net: Trained,
  images: np.ndarray,
  labels: np.ndarray,
  target: Target,
  name: str,
  options: Options,
) -> np.ndarray:
  """Returns rank correlations [N, L]; classes are those of the real network.

  Of methods that are shown as magnitudes, magnitudes are compared.
  """
  # Logits of a random network may hardly differ: no part of that is asked for.
  options = options._replace(tolerance=1e30)
  groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
  back = np.argsort(np.concatenate(groups))

  def maps(other: Trained) -> np.ndarray:
    found = []
    for chosen in groups:
      one = Target(int(labels[chosen[0]]), target.against)
      made = METHODS[name].explain(other, images[chosen], one, options)
      found.append(made.maps if isinstance(made, Integrated) else made)
    return np.concatenate(found)[back]

  by_layer = sanity.cascade(
    net, maps, options.seed, METHODS[name].shows == MAGNITUDE
  )
  return np.stack(list(by_layer.values()), -1)


def _of_branches(
  net: Trained, images: np.ndarray, target: Target, options: Options
) -> Table:
  blocks = [options.block] if options.block else []
  gradient, ablation = (
    function(net, images, target, *blocks)
    for function in (parts.branches_by_gradient, parts.branches_by_ablation)
  )
  return Table(
    tuple(gradient),
    np.stack(list(gradient.values()), -1),
    np.stack(list(ablation.values()), -1),
  )


def _of_channels(
  net: Trained, images: np.ndarray, target: Target, options: Options
) -> Table:
  gradient, ablation = (
    function(net, images, target, options.layer)
    for function in (parts.channels_by_gradient, parts.channels_by_ablation)
  )
  layer = cam.find_layer(net.network, options.layer)
  names = tuple(f'{layer}:{i}' for i in range(gradient.shape[-1]))
  return Table(names, gradient, ablation)


_TABLES: dict[str, Callable[..., Table]] = {
  'branches': _of_branches,
  'channels': _of_channels,
}
