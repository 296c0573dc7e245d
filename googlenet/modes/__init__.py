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
    compares: --config is not what runs, but what the config of the run is
      compared with: an argument `baseline` of `run`, (file, config).
  """

  group: str
  help: str
  workdir: str
  flags: tuple[str, ...] = ()
  takes_several: bool = False
  compares: bool = False


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
    ('checkpoint', 'average', 'output'),
    takes_several=True,
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
  ),
  'export_weights': Mode(
    _ELSEWHERE, 'a run becomes such a file', 'reads', ('weights',)
  ),
}

FLAGS = {
  'allow_config_change': Flag(
    False,
    'go on with another config (but not another network, data or seed)',
  ),
  'checkpoint': Flag(
    'last', 'of each run: last, best, a step, or all that it keeps'
  ),
  'average': Flag(
    'predictions', 'what is averaged of several: predictions or weights'
  ),
  'output': Flag('', 'new file for what is computed'),
  'block': Flag('', 'whose branches are shown; default the first'),
  'image_index': Flag(0, 'of data.eval_split, the image whose maps are shown'),
  'compare': Flag(False, 'a line for each network'),
  'weights': Flag('', 'file of another framework that is read or written'),
}


def modes_of(flag: str) -> list[str]:
  """Returns the names of the modes that take a flag."""
  return [name for name, mode in MODES.items() if flag in mode.flags]
