"""--mode=fid: FID and KID of two sets of images, Inception Score of one."""

import json
import pathlib
from typing import Any

import jax
import ml_collections

from googlenet.errors import UserError
from googlenet.io import named
from googlenet.runtime.terminal import warn
from googlenet.tools import hub
from googlenet.tools.fid import extract, files, report
from googlenet.tools.fid import images as images_lib
from googlenet.tools.fid import resize as resize_lib
from googlenet.tools.inference import outputs, trained
from googlenet.tools.inference.numbers import MAX_SEED, check_numbers

Config = ml_collections.FrozenConfigDict

FORMATS = {'.npz': 'npz', '.json': 'json'}
# Images, or the statistics of a file; None: no --against.
_Opened = images_lib.Images | report.Side | None


def run(
  config: Config,
  workdir: str,
  started: float,
  images: str = '',
  against: str = '',
  resize: str = '',
  metrics: str = '',
  end_points: str = '',
  subsets: int = 100,
  subset_size: int = 1000,
  splits: int = 10,
  seed: int = 0,
  output: str = '',
) -> None:
  """Prints FID and KID of two sets of images, and the score of the first.

  Args:
    config: of the run; its `eval.batch_size` may differ.
    workdir: of the run whose network makes the features.
    started: unused.
    images: files, folders, patterns, an .npz of images, or statistics.
    against: the same, for the set to compare with; '': none.
    resize: a name in `resize.WAYS`, for the Inception network; '': 'clean'.
    metrics: 'fid', 'kid', 'is', separated by commas; '': all that can be
      computed.
    end_points: the layer whose features are compared; '': the last stage.
    subsets: of KID.
    subset_size: images of each.
    splits: of the Inception Score.
    seed: of the subsets, and of the order of images for the score.
    output: path of a new file: .npz for the statistics of `images`, .json for
      the results; '': none.

  Raises:
    UserError: images, statistics or a run are missing or damaged, or a flag is
      wrong; nothing is written.
  """
  del started
  outputs.check_one_process('fid', jax.process_count())
  check_numbers(
    **{
      '--seed': (seed, 0, MAX_SEED),
      '--subsets': (subsets, 1),
      '--subset_size': (subset_size, 2),
      '--splits': (splits, 1),
    }
  )
  format = _check_output(output, against)
  sides = _open_both(images, against)
  names, left_out = _choose(metrics, sides, against, format, images, output)
  net = trained.load_run(workdir, config)
  here = _about(net, resize, end_points)
  for side, flag in zip(sides, ('--images', '--against'), strict=True):
    if isinstance(side, report.Side):
      files.check_same(side.about, here, side.name, flag)
  first, second = _measured(net, sides, resize, here.end_point, names)
  if {report.FID} & set(names) or format == 'npz':
    for side in filter(None, (first, second)):
      if line := report.few_images(side):
        warn(line)
  found = report.compute(
    first, second, names, subsets, subset_size, splits, seed
  )
  for line in report.lines(found, extract.is_inception(net) and not end_points):
    print(line)
  if format != 'npz':
    for name, why in left_out.items():
      print(f'{name.upper():8} left out: {why}')
  print(f'images   {first.words}')
  if second:
    print(f'against  {second.words}')
  for line in _how(net, workdir, here, len(first.statistics.mean)):
    print(line)
  if format == 'npz':
    files.write_statistics(output, first.statistics, here)
  elif format == 'json':
    about = {
      'images': report.side_as_json(first),
      'against': report.side_as_json(second),
      'network': {**here._asdict(), 'checkpoint': str(net.path)},
    }
    with outputs.written_aside(output, 'w') as file:
      json.dump({**report.as_json(found), **about}, file, indent=2)
  if output:
    print(f'in       {output}')


def _check_output(output: str, against: str) -> str:
  """Returns the format of the output, one of `FORMATS`, or '' without one.

  Raises:
    UserError: it exists, has another ending, or is for statistics of one set
      while two are given.
  """
  if not output:
    return ''
  format = outputs.format_of(output, '', FORMATS)
  outputs.check_new(output)
  if format == 'npz' and against:
    raise UserError(
      f'--output={output} is for the statistics of --images: leave out '
      '--against, or give a name that ends in .json for the results'
    )
  return format


def _open_both(images: str, against: str) -> tuple[_Opened, _Opened]:
  """Returns what `_open` does for --images and --against."""
  if '-' in (images, against) and images == against:
    raise UserError('--images=- and --against=- cannot both be read on stdin')
  return _open(images, '--images'), _open(against, '--against')


def _choose(
  metrics: str,
  sides: tuple[_Opened, _Opened],
  against: str,
  format: str,
  images: str,
  output: str,
) -> tuple[list[str], dict[str, str]]:
  """Returns what `report.choose` does.

  Raises:
    UserError: there is nothing to compute or to write.
  """
  is_file = [isinstance(side, report.Side) for side in sides]
  names, left_out = report.choose(metrics, is_file[0], against, is_file[1])
  if is_file[0] and format == 'npz':
    raise UserError(
      f'--output={output}: --images={images} holds statistics already'
    )
  if not names and format != 'npz':
    raise UserError(
      f'--images={images} holds statistics, and there is nothing to compare '
      'them with: give --against'
    )
  return names, left_out


def _measured(
  net: trained.Trained,
  sides: tuple[_Opened, _Opened],
  resize: str,
  end_point: str,
  names: list[str],
) -> list[Any]:
  """Returns both sets with their statistics; None: no --against."""
  counts = [x.count for x in sides if isinstance(x, images_lib.Images)]
  size = net.program_size(max(counts, default=1))
  return [
    report.measure(net, side, resize, end_point, size, names)
    if isinstance(side, images_lib.Images)
    else side
    for side in sides
  ]


def _open(source: str, flag: str) -> _Opened:
  """Returns images, or the statistics of a file; None: no --against."""
  if not source and flag == '--against':
    return None
  if not files.is_statistics(source, flag):
    return images_lib.open_images(source, flag)
  found, about = files.read_statistics(source, flag)
  return report.Side(source, found, is_file=True, about=about)


def _about(net: trained.Trained, resize: str, end_point: str) -> files.About:
  """Returns how features will be made.

  Raises:
    UserError: a flag does not fit the network.
  """
  end_point = extract.end_point_of(net, end_point)
  extract.prepare_for(net, resize)
  if extract.is_inception(net):
    resize = resize or resize_lib.CLEAN
  return files.About(resize, end_point, files.digest_of(net))


def _how(
  net: trained.Trained, workdir: str, here: files.About, size: int
) -> list[str]:
  """Returns what the numbers depend on, as lines."""
  rows = [
    f'features {size:,} of {here.end_point}',
    f'network  {net.path}: step {net.step:,}',
  ]
  if not extract.is_inception(net):
    return [
      *rows,
      'resize   as in the training of this network',
      'note     these are not FID, KID and IS as others publish them, which '
      'are in features of the Inception network: compare them only with '
      'numbers of the same network',
    ]
  way = resize_lib.way_of(here.resize)
  rows.append(f'resize   {here.resize}: {way.words}; pixels {way.scale}')
  if pathlib.Path(workdir) != named.in_cache(hub.FID):
    rows.append(
      f'note     published numbers are those of the weights of '
      f'--workdir={hub.FID}, which these are not known to be'
    )
  return rows
