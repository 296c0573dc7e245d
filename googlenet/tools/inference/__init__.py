"""Trained networks: loading them, predicting with them, looking inside.

apply.py is the network as a function of stored pixels, predict.py the one way
from images to probabilities, trained.py both for the network of a run.
insight.py looks inside; arrays.py, outputs.py and feature_files.py are files.
"""

import os
import pathlib

from googlenet.tools.inference import arrays, trained


def load(path: str | os.PathLike[str]) -> trained.Trained:
  """Returns the network of a run, or of a file that --mode=export has written.

  Args:
    path: a workdir, or a file ending in .safetensors.

  Raises:
    UserError: the path holds no run and no such file, or what it holds is
      damaged.
  """
  if pathlib.Path(path).suffix == '.safetensors':
    return arrays.read(path)
  return trained.load_run(path)
