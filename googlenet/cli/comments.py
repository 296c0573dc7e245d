"""What the fields of a config do: the comments of configs/fmnist96.py."""

import functools
import re

from googlenet.runtime import files, places

# "config.data = data = ..." and "data.name = 'fashion_mnist'  # its name".
_SECTION = re.compile(r' +config\.(\w+) = (\w+) = ')
_FIELD = re.compile(r' +(\w+)\.(\w+) = .*?(?:  # (.*))?')


@functools.cache
def of_fields() -> dict[str, str]:
  """Returns the comment above and beside each field, {'seed': '...'}."""
  sections, found, above = {'config': ''}, {}, []
  for line in files.read_text(places.DEFAULTS).splitlines():
    if line.strip().startswith('# '):
      above.append(line.strip().removeprefix('# '))
      continue
    if section := _SECTION.match(line):
      sections[section[2]] = f'{section[1]}.'
    elif (field := _FIELD.fullmatch(line)) and field[1] in sections:
      words = [*above, field[3] or '']
      found[sections[field[1]] + field[2]] = ' '.join(words).strip()
    above = []
  return found
