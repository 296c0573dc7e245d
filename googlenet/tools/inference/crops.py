"""The multi-crop evaluation of the paper: predictions averaged over crops.

Szegedy et al. (2014), section 7. The host resizes an image to squares of
several sizes, from which the device cuts the crops. The sizes are 8, 9, 10 and
11 sevenths of the network's input: 256, 288, 320 and 352 for 224.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from googlenet.data.images import Squares


class Protocol(NamedTuple):
  """The set of crops taken from an image."""

  sevenths: tuple[int, ...]  # short sides of the resized images
  num_squares: int  # per size: 1, or 3 along the longer side
  with_whole: bool  # whether the whole square is used beside its five crops


# Keys are values of `eval.crops`.
PROTOCOLS = {
  10: Protocol((8,), 1, False),
  144: Protocol((8, 9, 10, 11), 3, True),
}


def squares(num_crops: int, image_size: int) -> list[Squares]:
  """Returns the transforms of the host; each needs a pass over the images.

  Args:
    num_crops: `eval.crops`, 10 or 144.
    image_size: side of the network's input, in pixels.
  """
  protocol = PROTOCOLS[num_crops]
  return [
    Squares(round(image_size * part / 7), protocol.num_squares)
    for part in protocol.sevenths
  ]


def cut(images: jax.Array, num_crops: int, image_size: int) -> list[jax.Array]:
  """Cuts the corners and the centre out of squares, and adds mirror images.

  Args:
    images: uint8 [B, n, R, R, C], the n squares of each image, R at least S.
    num_crops: `eval.crops`, 10 or 144.
    image_size: side S of the network's input, in pixels.

  Returns:
    uint8 [10 n, B, S, S, C] and, if the protocol uses whole squares, uint8
    [2 n, B, R, R, C].
  """
  size, last = image_size, images.shape[2] - image_size
  centre = round(last / 2)  # as torchvision rounds it
  places = [(0, 0), (0, last), (last, 0), (last, last), (centre, centre)]
  crops, whole = [], []
  for square in jnp.moveaxis(images, 1, 0):
    crops += [
      square[:, top : top + size, left : left + size] for top, left in places
    ]
    whole.append(square)
  stacks = [crops, whole] if PROTOCOLS[num_crops].with_whole else [crops]
  return [
    jnp.stack([*stack, *(view[:, :, ::-1] for view in stack)])
    for stack in stacks
  ]
