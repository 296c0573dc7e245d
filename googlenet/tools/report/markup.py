"""HTML as text: what is no markup yet is escaped."""

import html
from collections.abc import Iterable, Sequence


class Html(str):
  """Text that is markup; any other is escaped by what takes both."""


def element(name: str, *children: str, **attributes: str) -> Html:
  """Returns <name attributes>children</name>.

  A trailing underscore of an attribute is left out, others become hyphens:
  class_, aria_label.
  """
  texts = [
    f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
    for key, value in attributes.items()
  ]
  return Html(f'<{name}{"".join(texts)}>{join(children)}</{name}>')


def join(parts: Iterable[str]) -> Html:
  """Returns markup and escaped text in a row."""
  return Html(
    ''.join(
      part if isinstance(part, Html) else html.escape(part, quote=False)
      for part in parts
    )
  )


def image(uri: str, alt: str, **attributes: str) -> Html:
  """Returns a picture that is part of the page."""
  inner = element('img', src=uri, alt=alt, **attributes)
  return Html(inner.removesuffix('</img>'))


def figure(content: Html, caption: str, **attributes: str) -> Html:
  """Returns a figure with a caption."""
  return element(
    'figure', content, element('figcaption', caption), **attributes
  )


def table(
  head: Sequence[str],
  rows: Iterable[Sequence[str]],
  caption: str,
  **attributes: str,
) -> Html:
  """Returns a table that scrolls by itself where it is too wide.

  The first cell of a row is its heading. A cell that is markup of its own <td>
  stays as it is.
  """

  def cell(text: str) -> Html:
    if isinstance(text, Html) and text.startswith('<td'):
      return text
    return element('td', text)

  body = [
    element('tr', element('th', first, scope='row'), *map(cell, rest))
    for first, *rest in rows
  ]
  made = element(
    'table',
    element('caption', caption),
    element(
      'thead',
      element('tr', *(element('th', text, scope='col') for text in head)),
    ),
    element('tbody', *body),
    **attributes,
  )
  # To be scrolled with the keyboard it takes the focus.
  return element(
    'div',
    made,
    class_='scroll',
    tabindex='0',
    role='region',
    aria_label=caption,
  )
