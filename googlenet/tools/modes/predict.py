"""--mode=predict: prints or writes the most probable classes of image files."""

import contextlib
import csv
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TextIO

import jax
import ml_collections
import numpy as np

from googlenet.data import files, find
from googlenet.errors import UserError
from googlenet.runtime import streams
from googlenet.runtime.progress import Progress
from googlenet.runtime.terminal import above_bars, warn
from googlenet.tools.inference import outputs, predict, trained

Config = ml_collections.FrozenConfigDict

FORMATS = {'.txt': 'table', '.csv': 'csv', '.jsonl': 'jsonl', '.json': 'jsonl'}
_LONGEST_PATH = 48  # characters; largest width of the column of paths


class UnreadableImagesError(UserError):
  """Some images could not be read; the others were used."""

  exit_code = 65


class Guess(NamedTuple):
  """One of the most probable classes of an image."""

  label: int
  name: str
  probability: float


# (path, guesses) -> lines of text.
Row = Callable[[str, Sequence[Guess]], str]


def run(
  config: Config,
  workdir: str,
  started: float,
  images: str = '',
  top_k: int = 5,
  format: str = '',
  output: str = '',
  views: bool = True,
  temperature: float = 1.0,
) -> None:
  """Prints or writes the most probable classes of image files.

  Args:
    config: of the run; its `eval` section may differ.
    workdir: of a trained run; nothing is written there.
    started: unused.
    images: see `data.find.find`.
    top_k: number of classes per image; all classes if there are fewer.
    format: 'table', 'csv' or 'jsonl'; '': given by the ending of `output`, or
      a table.
    output: path of a new file; '': the console.
    views: whether to average over the views of evaluation.
    temperature: see `predict.with_temperature`.

  Raises:
    UserError: there are no images or no checkpoint, or the output cannot be
      made; nothing is written.
    UnreadableImagesError: some images could not be read; the output holds the
      others.
  """
  del started
  outputs.check_one_process('predict', jax.process_count())
  if top_k < 1:
    raise UserError(
      f'--top_k={top_k} is not allowed: it takes a whole number from 1'
    )
  predict.check_temperature(temperature)
  format = outputs.format_of(output, format, FORMATS, 'table')
  if output:
    outputs.check_new(output)
  paths = find.find(images, sys.stdin)
  net = trained.load_run(workdir, config)
  chosen = predict.views_of(net.config.eval, views)
  predict.tell_cost(chosen, '--views=false')
  count = min(top_k, len(net.class_names))
  header, row = make_rows(format, count, paths)
  with contextlib.ExitStack() as stack:
    bar = stack.enter_context(Progress('predict ', len(paths), 'images'))
    predictions = stack.enter_context(
      contextlib.closing(_predict(net, paths, chosen, temperature, count, bar))
    )
    # Predicted before the file is opened, since there may be nothing to write.
    first = next(predictions, None)
    if first is None:
      raise UnreadableImagesError(
        f'none of {count_images(len(paths))} could be read: nothing was '
        'predicted'
      )
    sink = sys.stdout
    if output:
      sink = stack.enter_context(outputs.written_aside(output, 'w'))
    num_read, clock = _write(sink, header, row, first, predictions)
  if output or format == 'table':
    print(f'{net.path}: step {net.step:,}, {count_images(num_read)}{clock}')
  if num_read < len(paths):
    raise UnreadableImagesError(
      f'{len(paths) - num_read:,} of {count_images(len(paths))} could not be '
      'read, see the warnings above; the others are done'
    )


def count_images(count: int) -> str:
  """Returns '1 image' or '2,000 images'."""
  return f'{count:,} image' + ('' if count == 1 else 's')


def none_read(total: int) -> UnreadableImagesError:
  """Returns the error for images of which none could be read."""
  return UnreadableImagesError(
    f'none of {count_images(total)} could be read: nothing was written'
  )


def check_all_read(count: int, total: int) -> None:
  """Raises UnreadableImagesError if only `count` of the images were read."""
  if count < total:
    raise UnreadableImagesError(
      f'{total - count:,} of {count_images(total)} could not be read, see the '
      'warnings above; the others are done'
    )


def warner(bar: Progress) -> Callable[[files.Item], None]:
  """Returns a function that warns about a file and advances a progress bar."""

  def tell(item: files.Item) -> None:
    bar.update()
    warn(f'{printable(item.path)} cannot be read: {item.problem}')

  return tell


def _predict(
  net: trained.Trained,
  paths: Sequence[str],
  views: predict.Views,
  temperature: float,
  top_k: int,
  bar: Progress,
) -> Iterator[list[tuple[str, list[Guess]]]]:
  """Yields paths and guesses, batch by batch.

  Raises:
    UserError: the parameters are not finite.
  """
  for part, probabilities in net.predict_files(paths, views, warner(bar)):
    if not np.isfinite(probabilities).all():
      raise UserError(
        f'{net.path}: the predictions of these parameters are not finite'
      )
    probabilities = predict.with_temperature(probabilities, temperature)
    # A stable sort puts the lower of two equal classes first, as argmax does.
    order = np.argsort(-probabilities, axis=-1, kind='stable')[:, :top_k]
    yield [
      (path, [Guess(k, net.class_names[k], float(row[k])) for k in best])
      for path, best, row in zip(
        part, order.tolist(), probabilities, strict=True
      )
    ]
    bar.update(len(part))


def _write(
  sink: TextIO,
  header: str,
  row: Row,
  first: list[tuple[str, list[Guess]]],
  rest: Iterator[list[tuple[str, list[Guess]]]],
) -> tuple[int, str]:
  """Writes all predictions; returns their number, and the speed in words.

  Raises:
    OSError: stdout cannot be written.
    ReaderGoneError: nobody reads stdout any more.
  """
  num_read, start = 0, time.perf_counter()
  sink.write(header)
  for part in itertools.chain([first], rest):
    with above_bars(sink):
      sink.write(''.join(row(path, guesses) for path, guesses in part))
      streams.check(sink)
    num_read += len(part)
  later = num_read - len(first)  # the first batch included compilation
  speed = later / max(time.perf_counter() - start, 1e-9)
  return num_read, f', {speed:,.0f} images/s' if later else ''


def printable(text: str) -> str:
  """Returns a path without characters that could disturb a terminal."""
  text = os.fsencode(text).decode('utf-8', 'replace')
  return ''.join(c if c.isprintable() else '?' for c in text)


def make_rows(format: str, top_k: int, paths: Sequence[str]) -> tuple[str, Row]:
  """Returns the header of an output, and a function that writes an image.

  Args:
    format: 'table', 'csv' or 'jsonl'.
    top_k: number of classes per image.
    paths: of all images, for the width of a table's first column.
  """
  if format == 'csv':

    def csv_row(*cells: object) -> str:
      text = io.StringIO()
      csv.writer(text, lineterminator='\n').writerow(cells)
      return text.getvalue()

    names = [
      f'{name}_{i}'
      for i in range(1, top_k + 1)
      for name in ('class', 'probability')
    ]

    def row(path: str, guesses: Sequence[Guess]) -> str:
      cells = [
        cell for guess in guesses for cell in (guess.name, _number(guess))
      ]
      return csv_row(os.fsencode(path).decode('utf-8', 'replace'), *cells)

    return csv_row('path', *names), row
  if format == 'jsonl':

    def row(path: str, guesses: Sequence[Guess]) -> str:
      classes = [
        {
          'label': guess.label,
          'class': guess.name,
          'probability': float(_number(guess)),
        }
        for guess in guesses
      ]
      return json.dumps({'path': path, 'classes': classes}) + '\n'

    return '', row
  width = min(max(len(printable(path)) for path in paths), _LONGEST_PATH)

  def row(path: str, guesses: Sequence[Guess]) -> str:
    words = [
      f'{printable(guess.name)} {guess.probability:.4f}' for guess in guesses
    ]
    return f'{printable(path):<{width}}  {", ".join(words)}\n'

  return '', row


def _number(guess: Guess) -> str:
  return f'{guess.probability:.7g}'
