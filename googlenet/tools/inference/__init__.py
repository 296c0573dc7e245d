"""Trained networks: load them, predict with them, look inside.

apply.py             the network as a pure function of stored pixels
predict.py           batches of images to probabilities, on all devices
trained.py           a network with the parameters of a run
insight.py           feature maps, class activation maps, branches
crops.py             the 10 or 144 crops of the paper
about.py, arrays.py  exported parameters and their description
outputs.py           files that are written completely or not at all
feature_files.py     files of features
"""

import os
import pathlib

from googlenet.runtime import places
from googlenet.tools import hub
from googlenet.tools.inference import arrays, trained


def load(path: str | os.PathLike[str]) -> trained.Trained:
  """Returns the network of a run, or of a .safetensors file.

  Args:
    path: a workdir; a .safetensors file that --mode=export has written; the
      name of a network in pretrained/, like 'fmnist28_best'; or one that is
      downloaded once: 'torchvision/googlenet' (and inception_v3, alexnet,
      vgg16), 'pytorch-fid/inception', or 'hf:OWNER/NAME', a published run on
      Hugging Face.

  Raises:
    UserError: the path holds neither, its files are damaged, or a network
      cannot be downloaded.
  """
  path = places.usable(path, 'path')
  if pathlib.Path(path).suffix == '.safetensors':
    return arrays.read(path)
  return trained.load_run(hub.run_of(path))
