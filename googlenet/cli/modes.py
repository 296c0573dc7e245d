"""The modes of launch.py and the flags of each mode.

Mode 'train' runs `googlenet/train/loop.py`. Every other mode is a file of the
same name in `googlenet/tools/modes` with a function `run(config, workdir,
started, **flags)`. `Mode.flags` names its flags; `mode_flags.py` defines them.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from googlenet.errors import UserError, did_you_mean


class Mode(NamedTuple):
  """A mode: its help and the inputs it takes.

  Attributes:
    group: heading in the help.
    help: one line that says what the mode does.
    workdir: 'continues': starts or continues a run; 'reads': reads a run;
      'makes': needs a new folder; 'optional': reads a run if --config is
      missing.
    flags: names of its own flags, which are arguments of `run`.
    takes_several: whether --workdir may list runs, a,b,c; `run` gets all but
      the first as `others`.
    example: flags of the example in the help.
    uses_devices: False if the mode starts other processes that do the work.
    compares: whether --config is only compared with the config of the run;
      `run` gets it as `baseline`, (file, config).
    preallocates: whether the mode, or a process that it starts, allocates most
      of a GPU's memory at the start.
    completes: whether the data set decides the fields that are left open; if
      not, `run` gets the names of fields that flags set as `given`, and checks
      the config.
    default_workdir: the run that it reads without --workdir.
    prints_result: whether its result is what it prints on stdout, unless there
      is an --output. What other modes print can be lost.
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
  completes: bool = True
  default_workdir: str = ''
  prints_result: bool = False

  @property
  def memory(self) -> str:
    """The key of `memory.REMEDIES` with the advice when memory runs out."""
    return 'training' if self.preallocates else 'evaluation'


_TRAIN, _LOOK, _ELSEWHERE = 'Train', 'Inspect and use', 'Import and export'

MODES = {
  'train': Mode(
    _TRAIN,
    'train a network or continue a run (the default)',
    'continues',
    ('allow_config_change',),
    preallocates=True,
  ),
  'sweep': Mode(
    _TRAIN,
    'train on a grid of field values; continue a sweep',
    'continues',
    ('sweep', 'shard', 'dry_run'),
    example="--sweep='optimizer.learning_rate=0.05,0.1;seed=0,1,2'",
    uses_devices=False,
    preallocates=True,
  ),
  'benchmark': Mode(
    _TRAIN,
    'training speed of this machine, also with PyTorch',
    'makes',
    uses_devices=False,
    preallocates=True,
  ),
  'summary': Mode(
    _LOOK,
    'list the layers of a network, or all networks',
    'optional',
    ('compare', 'points', 'equal_to'),
    example='--compare',
    prints_result=True,
  ),
  'evaluate': Mode(
    _LOOK,
    'evaluate a run; several runs a,b,c are averaged',
    'reads',
    (
      *('checkpoint', 'average', 'corruptions', 'seed', 'calibrate'),
      *('temperature', 'output'),
    ),
    takes_several=True,
    prints_result=True,
  ),
  'demo': Mode(
    _LOOK,
    'a web page to try a run on your own pictures',
    'reads',
    ('port', 'views'),
  ),
  'predict': Mode(
    _LOOK,
    'classify image files',
    'reads',
    ('images', 'top_k', 'format', 'output', 'views', 'temperature'),
    example="--images='photos/*.jpg'",
    prints_result=True,
  ),
  'features': Mode(
    _ELSEWHERE,
    'write end points of image files or data.eval_split',
    'reads',
    ('images', 'end_points', 'format', 'output'),
    example='--end_points=stage_4,stage_5 --output=features.npz',
  ),
  'examples': Mode(
    _LOOK,
    'the images of data.eval_split that excite channels',
    'reads',
    (
      *('channels', 'top_k', 'least', 'visualize', 'steps', 'seed'),
      *('format', 'output'),
    ),
    example='--channels=inception_4c:0-7 --output=examples.png',
  ),
  'report': Mode(
    _LOOK,
    'write a page: curves, errors, maps; compare runs a,b,c',
    'reads',
    ('block', 'image_index'),
    takes_several=True,
    compares=True,
  ),
  'explain': Mode(
    _LOOK,
    'show which pixels, positions and channels a decision is from',
    'reads',
    (
      *('images', 'image_index', 'num_images', 'method', 'class', 'against'),
      *('layer', 'block', 'baseline', 'steps', 'window', 'stride', 'sanity'),
      *('seed', 'format', 'output'),
    ),
    example="--images='photos/*.jpg' --output=explain.html",
  ),
  'visualize': Mode(
    _LOOK,
    'make images that excite channels, classes, layers',
    'reads',
    (
      *('channels', 'objective', 'image', 'steps', 'seed', 'size', 'frames'),
      'output',
    ),
    takes_several=True,
    example='--channels=inception_4c:0-15 --output=sheet.png',
  ),
  'circuits': Mode(
    _LOOK,
    'strongest connections of channels, through expanded weights',
    'reads',
    ('channels', 'from', 'to', 'top_k', 'format', 'output'),
    example='--channels=inception_4b:35 --output=circuit.png',
    prints_result=True,
  ),
  'similarity': Mode(
    _LOOK,
    'similarity of the layers of one run, or of two runs a,b',
    'reads',
    ('end_points', 'seed', 'format', 'output'),
    takes_several=True,
    example='--output=cka.png',
    prints_result=True,
  ),
  'probe': Mode(
    _LOOK,
    'accuracy of nearest neighbours and linear probes on features',
    'reads',
    ('end_points', 'k', 'flatten', 'seed', 'format', 'output'),
    example='--end_points=stage_3,stage_4 --output=probe.csv',
    prints_result=True,
  ),
  'atlas': Mode(
    _LOOK,
    'a map of what a layer tells apart in data.eval_split',
    'reads',
    (
      *('end_points', 'projection', 'grid', 'render', 'steps', 'seed'),
      *('format', 'output'),
    ),
    example='--end_points=stage_4 --output=atlas.png',
  ),
  'fid': Mode(
    _LOOK,
    'FID, KID and Inception Score of image files or arrays',
    'reads',
    (
      *('images', 'against', 'resize', 'metrics', 'end_points', 'subsets'),
      *('subset_size', 'splits', 'seed', 'output'),
    ),
    example='--images=generated --against=real',
    default_workdir='pytorch-fid/inception',
    prints_result=True,
  ),
  'import_weights': Mode(
    _ELSEWHERE,
    'make a run from a weight file of PyTorch or Caffe',
    'makes',
    ('weights', 'preset'),
    example='--config.model.variant=torchvision --weights=googlenet.pth',
    completes=False,
  ),
  'export_weights': Mode(
    _ELSEWHERE,
    'write the weights of a run for PyTorch or Caffe',
    'reads',
    ('weights',),
    example='--weights=out.safetensors',
  ),
  'export': Mode(
    _ELSEWHERE,
    'export a run as .onnx, .stablehlo or .safetensors',
    'reads',
    ('format', 'output', 'views', 'precision'),
    example='--output=model.onnx',
  ),
}


# Names of all flags in `Mode.flags`.
FLAGS = tuple(dict.fromkeys(f for mode in MODES.values() for f in mode.flags))


def parse_flags(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
  """Parses the flags of `launch.py`, including flag files.

  Args:
    values: the defined flags; earlier values are dropped.
    argv: the name of the program, then its arguments.

  Returns:
    The other arguments: config fields, --help, and unknown arguments.

  Raises:
    UserError: a value is not allowed, or a flag file cannot be read.
  """
  values.unparse_flags()
  try:
    return values(argv, known_only=True)[1:]
  except flags.Error as error:
    raise UserError(str(error)) from error
  except ValueError as error:  # absl reads the file as UTF-8
    given = ' '.join(x for x in argv if x.lstrip('-').startswith('flagfile'))
    raise UserError(
      f'{given}: a flag file is not UTF-8 text, or names one with a NUL '
      f'({" ".join(str(error).split())}): give one --flag=value per line'
    ) from error


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
