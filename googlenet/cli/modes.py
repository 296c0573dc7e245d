"""What launch.py can do, as two tables: modes, and the flags of theirs alone.

Training is the core's loop; every other mode is a file of its name in
`googlenet/tools/modes`, with a function `run(config, workdir, started,
**flags)`.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


class Flag(NamedTuple):
  """A flag of some modes, not of all."""

  default: bool | int | float | str  # the type is that of the flag
  help: str
  needs_workdir: bool = False  # a fresh folder would be another one each time


class Mode(NamedTuple):
  """What a mode is for, and what it takes.

  Attributes:
    group: heading in the help.
    help: what it does, in a line.
    workdir: 'continues' a run or begins one, 'reads' a run, 'makes' a fresh
      folder, or 'optional': a run is read where no config is given.
    flags: names in `FLAGS`; they are arguments of `run`.
    takes_several: `run` has an argument `others`, for --workdir=a,b,c.
    example: what a command line in its help ends with.
    uses_devices: False where the work is done by processes that it starts.
    compares: --config is not what runs, but what the config of the run is
      compared with: an argument `baseline` of `run`, (file, config).
    preallocates: it takes most of a GPU's memory at its start, itself or in
      the processes that it starts; else it takes what it needs.
  """

  group: str
  help: str
  workdir: str
  flags: tuple[str, ...] = ()
  takes_several: bool = False
  example: str = ''
  uses_devices: bool = True
  compares: bool = False
  preallocates: bool = False

  @property
  def memory(self) -> str:
    """What helps where memory runs out, a key of `runtime.memory.REMEDIES`."""
    return 'training' if self.preallocates else 'evaluation'


_TRAIN, _LOOK, _ELSEWHERE = 'Train', 'Look at it', 'Take it elsewhere'

MODES = {
  'train': Mode(
    _TRAIN,
    'train a network, or go on with a run (the default)',
    'continues',
    ('allow_config_change',),
    preallocates=True,
  ),
  'sweep': Mode(
    _TRAIN,
    'train on a grid of fields, trial after trial; go on with a sweep',
    'continues',
    ('sweep', 'shard', 'dry_run'),
    example="--sweep='optimizer.learning_rate=0.05,0.1;seed=0,1,2'",
    uses_devices=False,
    preallocates=True,
  ),
  'benchmark': Mode(
    _TRAIN,
    'time this machine, PyTorch beside it',
    'makes',
    uses_devices=False,
    preallocates=True,
  ),
  'summary': Mode(
    _LOOK,
    'the layers of a network, or all networks',
    'optional',
    ('compare',),
    example='--compare',
  ),
  'evaluate': Mode(
    _LOOK,
    'score a run; several as a,b,c are averaged',
    'reads',
    ('checkpoint', 'average', 'output'),
    takes_several=True,
  ),
  'demo': Mode(
    _LOOK,
    'a page on which to try a run: pictures, maps',
    'reads',
    ('port', 'views'),
  ),
  'predict': Mode(
    _LOOK,
    'the classes of image files',
    'reads',
    ('images', 'top_k', 'format', 'output', 'views'),
    example="--images='photos/*.jpg'",
  ),
  'features': Mode(
    _ELSEWHERE,
    'end points of image files, or of data.eval_split, one view each',
    'reads',
    ('images', 'end_points', 'format', 'output'),
    example='--end_points=stage_4,stage_5 --output=features.npz',
  ),
  'report': Mode(
    _LOOK,
    'report.html in the workdir: curves, errors, maps; a,b,c are compared',
    'reads',
    ('block', 'image_index'),
    takes_several=True,
    compares=True,
  ),
  'import_weights': Mode(
    _ELSEWHERE,
    'a file of PyTorch or Caffe becomes a run',
    'makes',
    ('weights',),
    example='--config.model.variant=torchvision --weights=googlenet.pth',
  ),
  'export_weights': Mode(
    _ELSEWHERE,
    'a run becomes such a file',
    'reads',
    ('weights',),
    example='--weights=out.safetensors',
  ),
  'export': Mode(
    _ELSEWHERE,
    'a run becomes .onnx, .stablehlo or .safetensors',
    'reads',
    ('format', 'output', 'views'),
    example='--output=model.onnx',
  ),
}

FLAGS = {
  'allow_config_change': Flag(
    False,
    'go on with another config (but not another network, data or seed)',
  ),
  'sweep': Flag(
    '',
    'fields and their values, like '
    "'optimizer.learning_rate=0.05,0.1;seed=0,1,2'",
  ),
  'shard': Flag(
    '',
    'a part of the trials: 0/8 to 7/8, one for each machine',
    needs_workdir=True,
  ),
  'dry_run': Flag(False, 'list the trials and how far each is, train none'),
  'checkpoint': Flag(
    'last', 'of each run: last, best, a step, or all that it keeps'
  ),
  'average': Flag(
    'predictions', 'what is averaged of several: predictions or weights'
  ),
  'block': Flag('', 'whose branches are shown; default the first'),
  'image_index': Flag(0, 'of data.eval_split, the image whose maps are shown'),
  'compare': Flag(False, 'a line for each network'),
  'port': Flag(7860, 'of the page, at 127.0.0.1; 0: any that is free'),
  'images': Flag(
    '', 'files, folders, patterns like photos/*.jpg; - is a list on stdin'
  ),
  'end_points': Flag(
    '', 'layers and stages, separated by commas; else the last stage'
  ),
  'top_k': Flag(5, 'how many classes of each image'),
  'format': Flag('', 'of the output, where its name does not tell'),
  'output': Flag('', 'new file; predict writes to the screen without'),
  'views': Flag(
    True,
    'average over the views of an image that the run is evaluated with '
    '(eval.flip, eval.shift, eval.crops); false: compute it once',
  ),
  'weights': Flag('', 'file of another framework that is read or written'),
}


def modes_of(flag: str) -> list[str]:
  """Returns the names of the modes that take a flag."""
  return [name for name, mode in MODES.items() if flag in mode.flags]


def function_of(name: str) -> Callable[..., Any]:
  """Imports and returns the function that a mode runs.

  Returns:
    (config, workdir, started, **flags of the mode).
  """
  if name == 'train':
    return importlib.import_module('googlenet.train.loop').train_and_evaluate
  return importlib.import_module(f'googlenet.tools.modes.{name}').run
