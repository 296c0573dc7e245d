"""The page of --mode=explain: each image with its maps and tables."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from googlenet.tools.explain import pictures
from googlenet.tools.explain.methods import (
  METHODS,
  TABLES,
  Explained,
  Table,
)
from googlenet.tools.report import figures
from googlenet.tools.report.page import TEMPLATES, Section, environment
from googlenet.tools.report.pictures import data_uri

_ENVIRONMENT = environment(
  pathlib.Path(__file__).parent / 'templates', TEMPLATES
)
_NUM_CLASSES = 3  # shown of an image
_NUM_CHANNELS = 10  # shown of a table of channels


def _fill(template: str, **values: Any) -> Markup:
  return Markup(_ENVIRONMENT.get_template(template).render(values))


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Returns the softmax of logits [..., K]."""
  powers = np.exp(logits - logits.max(-1, keepdims=True))
  return powers / powers.sum(-1, keepdims=True)


def score_name(explained: Explained, i: int, class_names: Sequence[str]) -> str:
  """Returns 'Shirt', or 'Shirt against Coat', for an image of a batch."""
  name = class_names[explained.labels[i]]
  if explained.against is not None:
    name += f' against {class_names[explained.against]}'
  return name


def section(
  explained: Explained,
  i: int,
  title: str,
  anchor: str,
  class_names: Sequence[str],
) -> Section:
  """Returns the section about one image of a batch.

  Args:
    explained: the batch.
    i: place of the image in it.
    title: path of the file, or place and class in the split.
    anchor: id of the section.
    class_names: of all classes.
  """
  pixels = pictures.as_pixels(explained.images[i])
  logits = explained.logits[i]
  shown = dict.fromkeys(
    [
      *np.argsort(-logits, kind='stable')[:_NUM_CLASSES].tolist(),
      int(explained.labels[i]),
      *([explained.against] if explained.against is not None else []),
    ]
  )
  chances = probabilities(logits)
  cards = [
    _card(explained, i, pixels, name, class_names) for name in explained.maps
  ]
  body = _fill(
    'image.html',
    title=title,
    uri=data_uri(pictures.photo(pixels)),
    classes=[
      (class_names[k], f'{logits[k]:.2f}', f'{chances[k]:.4f}') for k in shown
    ],
    score=score_name(explained, i, class_names),
    cards=cards,
    tables=[
      (_caption(name), rows(table, i, _NUM_CHANNELS * (name == 'channels')))
      for name, table in explained.tables.items()
    ],
  )
  return Section(anchor, title, body)


def _caption(name: str) -> str:
  what = 'the strongest' if name == 'channels' else 'in order'
  return f'{TABLES[name]}, {what}, in logits'


def _card(
  explained: Explained,
  i: int,
  pixels: np.ndarray,
  name: str,
  class_names: Sequence[str],
) -> dict[str, Any]:
  image, scale = pictures.drawn(pixels, explained.maps[name][i], name)
  note = ''
  if name == 'integrated_gradients' and explained.integrated:
    found = explained.integrated
    note = (
      f'Sum {found.maps[i].sum():.3f} of {found.difference[i]:.3f}, in '
      f'{found.steps[i]} steps.'
    )
  return {
    'uri': data_uri(image),
    'alt': f'{METHODS[name].title} for {score_name(explained, i, class_names)}',
    'title': METHODS[name].title,
    'note': note,
    'stops': scale.stops,
    'low': f'{scale.low:.2g}',
    'high': f'{scale.high:.2g}',
  }


def rows(table: Table, i: int, count: int = 0) -> list[tuple[str, str, str]]:
  """Returns names, activation times gradient and ablation of an image.

  Args:
    table: of a batch.
    i: place of the image in it.
    count: number of rows, those of the largest ablations first; 0: all rows, in
      their order.
  """
  order = np.arange(len(table.names))
  if count:
    order = np.argsort(-np.abs(table.ablation[i]), kind='stable')[:count]
  return [
    (
      table.names[p],
      f'{table.gradient[i, p]:.3f}',
      f'{table.ablation[i, p]:.3f}',
    )
    for p in order
  ]


def sanity_section(
  layers: Sequence[str], found: dict[str, np.ndarray]
) -> Section:
  """Returns the section of the sanity check.

  Args:
    layers: down to which the network was randomized.
    found: rank correlations [N, L], by name of the method.
  """
  means = {name: values.mean(0) for name, values in found.items()}
  lines = [
    figures.Line(
      METHODS[name].title,
      [0, *range(1, len(layers) + 1)],
      [1.0, *values],
      place,
    )
    for place, (name, values) in enumerate(means.items())
  ]
  chart = figures.curves(
    lines, 'Rank correlation', '', 'sanity', 'randomized layer'
  )
  body = _fill(
    'sanity.html',
    chart=chart,
    head=('down to', *(METHODS[name].title for name in means)),
    rows=[
      (layer, *(f'{values[j]:.2f}' for values in means.values()))
      for j, layer in enumerate(layers)
    ],
    count=len(next(iter(found.values()))),
  )
  return Section('sanity', 'Sanity check', body)


def about_section(names: Sequence[str], net_path: str, step: int) -> Section:
  """Returns the section that says how everything was computed.

  Args:
    names: of the methods.
    net_path: of the checkpoint.
    step: of the checkpoint.
  """
  body = _fill(
    'about.html',
    path=net_path,
    step=step,
    methods=[METHODS[name] for name in names if name in METHODS],
    has_tables=any(name in TABLES for name in names),
  )
  return Section('about', 'How to read it', body)


def page(title: str, sections: Sequence[Section], footer: str) -> str:
  """Returns the whole page as HTML."""
  return str(_fill('page.html', title=title, sections=sections, footer=footer))
