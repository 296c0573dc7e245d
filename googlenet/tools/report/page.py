"""HTML of the report, rendered from the Jinja templates in `templates/`.

Jinja escapes every value that it inserts, except for `Markup`: sections that
are already rendered, and charts.
"""

import pathlib
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

TEMPLATES = pathlib.Path(__file__).parent / 'templates'


def environment(*folders: pathlib.Path) -> jinja2.Environment:
  """Returns what renders the templates of some folders."""
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(folders),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


_ENVIRONMENT = environment(TEMPLATES)


class Section(NamedTuple):
  """One section of the page: its id, title and content."""

  anchor: str
  title: str
  body: Markup


def fill(template: str, **values: Any) -> Markup:
  """Returns a rendered template, a file of `templates/`."""
  return Markup(_ENVIRONMENT.get_template(template).render(values))


def note(text: str) -> Markup:
  """Returns a paragraph that explains why something is missing."""
  return Markup('<p class="note">{}</p>').format(text)
