"""Files of visualizations: a sheet, arrays, an animation, or a folder of all.

sheet.png    a sheet: a row of runs for each channel, or all of one run
arrays.npz   images, values, curves and frames
ascent.gif   the sheet while it is made
folder/      sheet.png, arrays.npz, curves.png, and frames/001.png ...
"""

import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from googlenet.errors import UserError, is_full, writing
from googlenet.runtime import files
from googlenet.tools.inference import outputs
from googlenet.tools.visualize import sheet
from googlenet.tools.visualize.rendered import Rendered

FORMATS = {'.png': 'sheet', '.npz': 'arrays', '.gif': 'animation', '': 'folder'}
_WITH_FRAMES = ('arrays', 'animation', 'folder')
_DEFAULT_FRAMES = 24  # of an animation
_FRAME_MS = 80
_MAX_NAMED = 12  # curves with a name beside them


class Of(NamedTuple):
  """The visualizations of one run.

  Attributes:
    run: its name.
    made: its images.
  """

  run: str
  made: Rendered


def check(output: str, frames: int, steps: int) -> tuple[str, int]:
  """Checks --output and --frames; returns the format and number of frames.

  Args:
    output: path of a new file or folder.
    frames: number of images on the way to keep; 0: the default of the format.
    steps: of the ascent.

  Raises:
    UserError: the ending is unknown, the output exists or cannot be made, it
      cannot hold frames, or there are more frames than steps.
  """
  suffix = pathlib.Path(output).suffix
  if output and suffix not in FORMATS:
    raise UserError(
      f'--output={output} has no known ending: choose one of '
      f'{", ".join(filter(None, FORMATS))}, or a name without one for a folder'
    )
  outputs.check_new(output)
  form = FORMATS[suffix]
  if frames and form not in _WITH_FRAMES:
    raise UserError(
      f'--frames={frames}: {output} has no place for frames; give '
      '--output=NAME.gif, NAME.npz or a folder'
    )
  if frames > steps:
    raise UserError(
      f'--frames={frames} are more than {steps} steps: give fewer frames or '
      'more --steps'
    )
  default = min(_DEFAULT_FRAMES, steps) if form == 'animation' else 0
  return form, frames or default


def short_names(folders: Sequence[str]) -> list[str]:
  """Returns the names of folders without the leading parts that all share."""
  parts = [pathlib.Path(folder).parts for folder in folders]
  shared = len(os.path.commonprefix(parts))
  if any(len(own) == shared for own in parts):
    return list(folders)
  return [str(pathlib.Path(*own[shared:])) for own in parts]


def draw(found: Sequence[Of], frame: int | None = None) -> Image.Image:
  """Draws the sheet of one run, or a row for each image of several runs.

  Args:
    found: the runs, with as many images each.
    frame: of the images on the way; None: the last ones, with their values.
  """
  tiles, names = [], short_names([run for run, _ in found])
  for i in range(len(found[0].made.images)):
    for run, (_, made) in zip(names, found, strict=True):
      images = made.images if frame is None else made.frames[frame]
      value = '' if frame is not None else f'{made.values[i]:.3g}'
      lines = made.names[i], run if len(found) > 1 else '', value
      tiles.append(sheet.Tile(images[i], tuple(filter(None, lines))))
  columns = len(found)
  if columns == 1:
    columns = sheet.columns_for(len(tiles))
  return sheet.draw(tiles, columns)


def arrays(found: Sequence[Of]) -> dict[str, np.ndarray]:
  """Returns all arrays by name; of several runs, the k-th one's as `k/name`."""
  result: dict[str, np.ndarray] = {}
  if len(found) > 1:
    result['runs'] = np.array([run for run, _ in found])
  for k, (_, made) in enumerate(found):
    start = f'{k}/' if len(found) > 1 else ''
    result |= {
      f'{start}{name}': np.asarray(value)
      for name, value in made._asdict().items()
    }
  return result


def curves(found: Sequence[Of]) -> Figure:
  """Draws the objective of each image over the steps, one panel for a run."""
  figure = Figure(figsize=(5 * len(found), 4), layout='constrained')
  for axes, (run, made) in zip(
    figure.subplots(1, len(found), squeeze=False)[0], found, strict=True
  ):
    steps = np.arange(1, made.curves.shape[1] + 1)
    for name, curve in zip(made.names, made.curves, strict=True):
      axes.plot(steps, curve, label=name, linewidth=1)
    axes.set_title(run, fontsize='medium')
    axes.set_xlabel('step')
    axes.set_ylabel('objective')
    axes.grid(alpha=0.3)
    if len(made.names) <= _MAX_NAMED:
      axes.legend(fontsize='small')
  return figure


def _save_sheet(file: Any, found: Sequence[Of]) -> None:
  draw(found).save(file, 'PNG')


def _save_arrays(file: Any, found: Sequence[Of]) -> None:
  np.savez(file, **arrays(found))


def _save_animation(file: Any, found: Sequence[Of]) -> None:
  first, *others = [draw(found, i) for i in range(_num_frames(found))]
  first.save(
    file,
    'GIF',
    save_all=True,
    append_images=others,
    duration=_FRAME_MS,
    loop=0,
  )


def _num_frames(found: Sequence[Of]) -> int:
  return len(found[0].made.frames)


_SAVE: dict[str, Callable[[Any, Sequence[Of]], None]] = {
  'sheet': _save_sheet,
  'arrays': _save_arrays,
  'animation': _save_animation,
}


def write(output: str, form: str, found: Sequence[Of]) -> None:
  """Writes an output completely or not at all.

  Args:
    output: path of what does not exist.
    form: a value of `FORMATS`.
    found: the runs.

  Raises:
    UserError: the folder cannot be made.
    OSError: a file cannot be written.
  """
  if form != 'folder':
    with outputs.written_aside(output) as file:
      _SAVE[form](file, found)
    return
  folder = pathlib.Path(output)
  try:
    with (
      outputs.terminates_cleanly(),
      writing(folder),
      tempfile.TemporaryDirectory(dir=folder.parent) as made,
    ):
      aside = pathlib.Path(made) / 'made'
      _write_folder(aside, found)
      os.replace(aside, folder)
  except OSError as error:
    if is_full(error):
      raise
    raise UserError(
      f'--output={output} cannot be written ({error.strerror}): give another '
      'folder'
    ) from error


def _write_folder(folder: pathlib.Path, found: Sequence[Of]) -> None:
  folder.mkdir()
  for name, form in {'sheet.png': 'sheet', 'arrays.npz': 'arrays'}.items():
    with files.written_aside(folder / name) as file:
      _SAVE[form](file, found)
  with files.written_aside(folder / 'curves.png') as file:
    curves(found).savefig(file, format='png', dpi=120)
  if _num_frames(found):
    (folder / 'frames').mkdir()
  for i in range(_num_frames(found)):
    with files.written_aside(folder / f'frames/{i + 1:03d}.png') as file:
      draw(found, i).save(file, 'PNG')
