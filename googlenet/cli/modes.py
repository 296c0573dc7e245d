"""What launch.py can do: a table of modes, and the flags of single modes.

Training is the core's loop; every other mode is a file of its name in
`googlenet/tools/modes`, with a function `run(config, workdir, started,
**flags)`. A flag is named in `Mode.flags` and defined in `define_flags`.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from googlenet.errors import UserError, did_you_mean


class Mode(NamedTuple):
  """What a mode is for, and what it takes.

  Attributes:
    group: its heading in the help.
    help: what it does, in a line.
    workdir: 'continues' a run or begins one, 'reads' a run, 'makes' a fresh
      folder, or 'optional': reads a run where no config is given.
    flags: names of its own flags; they are arguments of `run`.
    takes_several: `run` has an argument `others`, for --workdir=a,b,c.
    example: the end of the command line that its help shows.
    uses_devices: False where other processes, which it starts, do the work.
    compares: --config is not the config that runs, but one to compare the
      run's with: `run` has an argument `baseline`, (file, config).
    preallocates: whether it, or a process that it starts, takes most of a GPU's
      memory at the start.
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
    """Which advice to give when memory runs out, a key of `memory.REMEDIES`."""
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


# Names of the flags of single modes.
FLAGS = tuple(dict.fromkeys(f for mode in MODES.values() for f in mode.flags))


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of single modes, and those of several processes."""
  string = functools.partial(flags.DEFINE_string, flag_values=values)
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  boolean = functools.partial(flags.DEFINE_bool, flag_values=values)
  boolean(
    'allow_config_change',
    False,
    'go on with another config (but not another network, data or seed)',
  )
  string(
    'sweep',
    '',
    "fields and their values, like 'optimizer.learning_rate=0.05,0.1;"
    "seed=0,1,2'",
  )
  string('shard', '', 'a part of the trials: 0/8 to 7/8, one for each machine')
  boolean('dry_run', False, 'list the trials and how far each is, train none')
  string(
    'checkpoint',
    'last',
    'of each run: last, best, a step, or all that it keeps',
  )
  string(
    'average',
    'predictions',
    'what is averaged of several: predictions or weights',
  )
  string('block', '', 'whose branches are shown; default the first')
  integer(
    'image_index', 0, 'of data.eval_split, the image whose maps are shown'
  )
  boolean('compare', False, 'a line for each network')
  integer('port', 7860, 'of the page, at 127.0.0.1; 0: any that is free')
  string(
    'images',
    '',
    'files, folders, patterns like photos/*.jpg; - is a list on stdin',
  )
  string(
    'end_points',
    '',
    'layers and stages, separated by commas; else the last stage',
  )
  integer('top_k', 5, 'how many classes of each image')
  string('format', '', 'of the output, where its name does not tell')
  string('output', '', 'new file; predict writes to the screen without')
  boolean(
    'views',
    True,
    'average over the views of an image that the run is evaluated with '
    '(eval.flip, eval.shift, eval.crops); false: compute it once',
  )
  string('weights', '', 'file of another framework that is read or written')
  string('coordinator_address', None, 'host:port of process 0')
  integer('num_processes', None, 'how many')
  integer('process_id', None, 'which one this is, from 0')
  integer(
    'heartbeat_timeout_seconds',
    30,
    'a process silent for so long ends the others',
    lower_bound=1,
    upper_bound=3600,
  )


def parse_flags(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
  """Parses the flags of `launch.py`, those in flag files too.

  Args:
    values: the flags, defined; earlier values are forgotten.
    argv: the name of the program, then its arguments.

  Returns:
    The other arguments: fields of the config, --help, and what is a mistake.

  Raises:
    UserError: a value is not allowed, or a flag file cannot be read.
  """
  values.unparse_flags()
  try:
    return values(argv, known_only=True)[1:]
  except flags.Error as error:
    raise UserError(str(error)) from error


def unknown_mode(name: str) -> UserError:
  """Returns the error for a mode that does not exist."""
  return UserError(
    f'--mode={name} is not a mode{did_you_mean(name, MODES)}; allowed is one '
    f'of {", ".join(MODES)}'
  )


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
