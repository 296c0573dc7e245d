"""The page: sections in a template, all of it in one file."""

import pathlib
import string

from googlenet.tools.report.markup import element, join
from googlenet.tools.report.sections import Section

_FOLDER = pathlib.Path(__file__).parent


def render(title: str, sections: list[Section], footer: str) -> str:
  """Returns the page as HTML that needs nothing beside it.

  Args:
    title: of the page.
    sections: in order; each gets a place in the list of contents.
    footer: the line at its end.
  """
  template = (_FOLDER / 'page.html').read_text(encoding='utf-8')
  contents = [
    element('li', element('a', section.title, href=f'#{section.anchor}'))
    for section in sections
  ]
  bodies = [
    element(
      'section',
      element('h2', section.title, id=f'{section.anchor}-title'),
      section.body,
      id=section.anchor,
      aria_labelledby=f'{section.anchor}-title',
    )
    for section in sections
  ]
  return string.Template(template).substitute(
    title=join([title]),
    style=(_FOLDER / 'style.css').read_text(encoding='utf-8'),
    contents=join(contents),
    sections='\n'.join(bodies),
    footer=join([footer]),
  )
