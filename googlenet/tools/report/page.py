"""HTML of the report, rendered from the Jinja templates in `templates/`.

Jinja escapes every value that it inserts, except for `Markup`: sections that
are already rendered, and charts.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

_TEMPLATES = pathlib.Path(__file__).parent / 'templates'


class Section(NamedTuple):
  """One section of the page: its id, title and content."""

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
  """Returns a rendered template, a file of `templates/`."""
  return Markup(_environment().get_template(template).render(values))


def note(text: str) -> Markup:
  """Returns a paragraph that explains why something is missing."""
  return Markup('<p class="note">{}</p>').format(text)


def render(title: str, sections: list[Section], footer: str) -> str:
  """Returns the whole page as one file without external resources.

  Args:
    title: of the page.
    sections: in order; the list of contents links to each of them.
    footer: the last line of the page.
  """
  return fill('page.html', title=title, sections=sections, footer=footer)
