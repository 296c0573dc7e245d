"""Files of explanations: a page, a picture, or arrays.

Each writer takes (output, batches, net, names of methods), writes a new file
completely or not at all, and returns the number of images; 0: nothing written.
"""

import itertools
import pathlib
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from googlenet.tools.explain import page, sheet
from googlenet.tools.explain import sanity as sanity_lib
from googlenet.tools.explain.methods import Explained
from googlenet.tools.inference import feature_files, outputs, trained


class Part(NamedTuple):
  """A batch that is explained.

  Attributes:
    titles: of the images: paths, or places and classes in the split.
    known: arrays [n] about the images, by name, for an .npz.
    explained: the batch.
  """

  titles: list[str]
  known: dict[str, np.ndarray]
  explained: Explained


def write_npz(
  output: str,
  parts: Iterator[Part],
  net: trained.Trained,
  names: tuple[str, ...],
) -> int:
  """Writes arrays [N, ...], batch by batch; returns N."""
  del names
  first = next(parts, None)
  if first is None:
    return 0
  with feature_files.npz(output) as writer:
    for name, table in first.explained.tables.items():
      writer.share({f'{name}_names': np.array(table.names)})
    if first.explained.sanity:
      layers = sanity_lib.layers(net.network)
      writer.share({'sanity_layers': np.array(layers)})
    for part in itertools.chain([first], parts):
      writer.write(_arrays(part, net.class_names))
  return writer.count


def _arrays(part: Part, class_names: tuple[str, ...]) -> dict[str, np.ndarray]:
  """Returns the arrays of a batch, [n, ...] by name."""
  found, count = part.explained, len(part.titles)
  arrays = {
    **part.known,
    'image': found.images,
    'logits': found.logits,
    'probabilities': page.probabilities(found.logits),
    'class': np.array([class_names[k] for k in found.labels]),
    **found.maps,
  }
  if found.against is not None:
    arrays['against'] = np.full(count, class_names[found.against])
  if found.integrated:
    arrays['integrated_gradients_difference'] = found.integrated.difference
    arrays['integrated_gradients_residual'] = found.integrated.residual
  for name, table in found.tables.items():
    arrays[f'{name}_gradient'] = table.gradient
    arrays[f'{name}_ablation'] = table.ablation
  for name, values in found.sanity.items():
    arrays[f'{name}_sanity'] = values.astype(np.float32)
  return arrays


def write_html(
  output: str,
  parts: Iterator[Part],
  net: trained.Trained,
  names: tuple[str, ...],
) -> int:
  """Writes a page; returns the number of images."""
  sections, tested = [], {}
  for part in parts:
    for i, title in enumerate(part.titles):
      anchor = f'image-{len(sections)}'
      sections.append(
        page.section(part.explained, i, title, anchor, net.class_names)
      )
    for name, values in part.explained.sanity.items():
      tested.setdefault(name, []).append(values)
  if not sections:
    return 0
  count = len(sections)
  if tested:
    found = {name: np.concatenate(values) for name, values in tested.items()}
    sections.append(page.sanity_section(sanity_lib.layers(net.network), found))
  sections.append(page.about_section(names, str(net.path), net.step))
  stamp = time.strftime('%Y-%m-%d %H:%M', time.localtime())
  text = page.page('Explanations', sections, f'Written {stamp}.')
  with outputs.written_aside(output, 'w') as file:
    file.write(text)
  return count


def write_png(
  output: str,
  parts: Iterator[Part],
  net: trained.Trained,
  names: tuple[str, ...],
) -> int:
  """Writes one picture; returns the number of images."""
  del names
  shown = [
    (part.explained, i, pathlib.PurePath(title).name)
    for part in parts
    for i, title in enumerate(part.titles)
  ]
  if not shown:
    return 0
  drawn = sheet.draw(shown, net.class_names)
  with outputs.written_aside(output) as file:
    file.write(drawn)
  return len(shown)


WRITERS = {'html': write_html, 'png': write_png, 'npz': write_npz}
