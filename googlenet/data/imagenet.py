"""The 1,000 classes of ILSVRC 2012: WordNet ids, in the order of labels.

imagenet_classes.txt has an id and a name per line, separated by a tab: ids as
in timm (timm/data/_info/imagenet_synsets.txt), names as in torchvision
(torchvision/models/_meta.py).

imagenet_devkit.txt has the same ids in the order of the challenge's development
kit, `ILSVRC2012_ID` 1 to 1,000, which older networks have.
"""

import functools
import pathlib

_FILE = pathlib.Path(__file__).with_name('imagenet_classes.txt')
_DEVKIT = _FILE.with_name('imagenet_devkit.txt')


@functools.cache
def names_by_id() -> dict[str, str]:
  """Returns the name of each class by its WordNet id, in the order of labels.

  It starts with 'n01440764': 'tench'.
  """
  lines = _FILE.read_text(encoding='utf-8').splitlines()
  return dict(line.split('\t') for line in lines)


@functools.cache
def names_in_devkit_order() -> tuple[str, ...]:
  """Returns the names by `ILSVRC2012_ID`: 'kit fox' is 1, the first here."""
  known = names_by_id()
  ids = _DEVKIT.read_text(encoding='utf-8').splitlines()
  return tuple(known[wordnet_id] for wordnet_id in ids)
