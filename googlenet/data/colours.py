"""Tells that image files are converted between grey and colour."""

import functools
import sys
import threading

import numpy as np
from PIL import Image

# Pillow's modes without colour; LA and La have alpha.
GREY = ('1', 'L', 'LA', 'La', 'I', 'I;16', 'I;16B', 'I;16L', 'F')
# Levels by which the channels of a grey pixel may differ in a JPEG.
_TOLERANCE = 8
_ONE_AT_A_TIME = threading.Lock()  # files are read in threads


def tell_conversion(image: Image.Image, num_channels: int) -> None:
  """Prints a warning, once in a process, if an image cannot stay as it is.

  Args:
    image: as stored in a file.
    num_channels: of the images that the network was trained on.
  """
  if num_channels == 1 and has_colours(image):
    with _ONE_AT_A_TIME:
      _warn('colour', 'grey')
  elif num_channels == 3 and image.mode in GREY:
    with _ONE_AT_A_TIME:
      _warn('grey', 'colour')


@functools.cache
def _warn(given: str, wanted: str) -> None:
  from tqdm import tqdm  # late: the program starts faster without it

  # Not `terminal.warn`: a progress bar may be shown.
  tqdm.write(
    f'warning: images in {given} are converted to {wanted}, in which the '
    'network was trained',
    file=sys.stderr,
  )


def has_colours(image: Image.Image) -> bool:
  """Returns whether some of 256 pixels of an image are not grey."""
  if image.mode in GREY:
    return False
  few = image.resize((16, 16), Image.Resampling.NEAREST).convert('RGB')
  return bool(np.ptp(np.asarray(few, int), axis=-1).max() > _TOLERANCE)
