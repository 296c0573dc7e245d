"""HTML of the report: templates that are filled with what Python computed.

All markup is in `templates/`. Jinja escapes every value it inserts, unless
that is `Markup`: a section that was filled already, or a chart.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

_TEMPLATES = pathlib.Path(__file__).parent / 'templates'


class Section(NamedTuple):
  """A heading of the page and what stands under it."""

  anchor: str
  title: str
  body: Markup


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def fill(template: str, **values: Any) -> Markup:
  """Returns a file of `templates/` with values in its places."""
  return Markup(_environment().get_template(template).render(values))


def note(text: str) -> Markup:
  """Returns a paragraph that says why something is missing."""
  return Markup('<p class="note">{}</p>').format(text)


def render(title: str, sections: list[Section], footer: str) -> str:
  """Returns the whole page: one file that needs no other.

  Args:
    title: of the page.
    sections: in order; each also stands in the list of contents.
    footer: the last line of the page.
  """
  return fill('page.html', title=title, sections=sections, footer=footer)
