"""What launch.py can do, as two tables: modes, and the flags of theirs alone.

A mode is the file of its name in this folder, with a function
`run(config, workdir, started, **flags)`.
"""

from typing import NamedTuple


class Flag(NamedTuple):
  """A flag of some modes, not of all."""

  default: bool | int | float | str  # the type is that of the flag
  help: str


class Mode(NamedTuple):
  """What a mode is for, and what it takes.

  Attributes:
    group: heading in the help.
    help: what it does, in a line.
    workdir: 'continues' a run or begins one, 'reads' a run, 'makes' a fresh
      folder, or 'optional': a run is read where no config is given.
    flags: names in `FLAGS`; they are arguments of `run`.
    takes_several: `run` has an argument `others`, for --workdir=a,b,c.
  """

  group: str
  help: str
  workdir: str
  flags: tuple[str, ...] = ()
  takes_several: bool = False


_TRAIN, _LOOK, _ELSEWHERE = 'Train', 'Look at it', 'Take it elsewhere'

MODES = {
  'train': Mode(
    _TRAIN,
    'train a network, or go on with a run (the default)',
    'continues',
    ('allow_config_change',),
  ),
  'benchmark': Mode(_TRAIN, 'time this machine, PyTorch beside it', 'makes'),
  'summary': Mode(
    _LOOK, 'the layers of a network, or all networks', 'optional', ('compare',)
  ),
  'evaluate': Mode(
    _LOOK,
    'score a run; several as a,b,c are averaged',
    'reads',
    takes_several=True,
  ),
  'demo': Mode(
    _LOOK, 'a page on which to try a run: pictures, maps', 'reads', ('port',)
  ),
  'predict': Mode(
    _LOOK,
    'the classes of image files',
    'reads',
    ('images', 'top_k', 'format', 'output'),
  ),
  'features': Mode(
    _ELSEWHERE,
    'end points of image files, or of data.eval_split',
    'reads',
    ('images', 'end_points', 'format', 'output'),
  ),
  'import_weights': Mode(
    _ELSEWHERE,
    'a file of PyTorch or Caffe becomes a run',
    'makes',
    ('weights',),
  ),
  'export_weights': Mode(
    _ELSEWHERE, 'a run becomes such a file', 'reads', ('weights',)
  ),
  'export': Mode(
    _ELSEWHERE,
    'a run becomes .onnx, .stablehlo or .safetensors',
    'reads',
    ('format', 'output'),
  ),
}

FLAGS = {
  'allow_config_change': Flag(
    False,
    'go on with another config (but not another network, data or seed)',
  ),
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
  'weights': Flag('', 'file of another framework that is read or written'),
}


def modes_of(flag: str) -> list[str]:
  """Returns the names of the modes that take a flag."""
  return [name for name, mode in MODES.items() if flag in mode.flags]
