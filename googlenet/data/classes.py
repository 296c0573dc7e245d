"""Labels: their range, by name, subsets by class, class weights."""

from collections.abc import Sequence

import numpy as np

from googlenet.data import imagenet
from googlenet.data.sources import Dataset
from googlenet.data.splits import some
from googlenet.errors import UserError

_CHUNK = 1000


class _Chosen:
  """Reads some examples of a data set, with their labels changed: a `Read`."""

  def __init__(
    self,
    dataset: Dataset,
    examples: np.ndarray | None = None,
    labels: np.ndarray | None = None,
  ):
    """Stores the choice.

    Args:
      dataset: read from.
      examples: int [n]: the index of each; None: all.
      labels: int32 [K]: the new label of each label; None: unchanged.
    """
    self._read, self._examples, self._labels = dataset.read, examples, labels

  def __call__(
    self, indices: np.ndarray, epoch: int = 0
  ) -> tuple[np.ndarray, np.ndarray]:
    if self._examples is not None:
      indices = self._examples[indices]
    images, labels = self._read(indices, epoch)
    return images, labels if self._labels is None else self._labels[labels]


def check_labels(
  labels: np.ndarray, num_classes: int, source_name: str
) -> None:
  """Checks that every label is a class of the model.

  Args:
    labels: integers of any shape.
    num_classes: number of classes of the model.
    source_name: name of the data set, for the message.

  Raises:
    UserError: a label is not in range(num_classes).
  """
  if labels.size == 0:
    return
  low, high = int(labels.min()), int(labels.max())
  if low < 0:
    raise UserError(
      f'config.model.num_classes={num_classes}: {source_name} has the label '
      f'{low} (seen: {low} to {high}), and no label may be negative; such a '
      'split holds no labels, choose another'
    )
  if high >= num_classes:
    raise UserError(
      f'config.model.num_classes={num_classes}: {source_name} has the label '
      f'{high} (seen: {low} to {high}); allowed is at least {high + 1}'
    )


def check_all_trained(path: str, train: Dataset, evaluation: Dataset) -> None:
  """Checks that each class of the user's own files has a training image.

  Whole splits count, so a small slice may lack classes. Data sets of others
  are taken as they are.

  Args:
    path: `data.classes`, which may name classes without images; '': no file.
    train: of `data.train_split`.
    evaluation: of `data.eval_split`, with the same classes.

  Raises:
    UserError: a class has no training image; if it has others, the message
      names their split.
  """
  if path or not train.identity or not evaluation.identity:
    return
  tested = evaluation.identity.classes
  empty = {
    name: f'label {label}' if name == str(label) else repr(name)
    for label, name in enumerate(train.class_names)
    if not train.identity.classes[name]
  }
  if not empty:
    return
  foreign = [shown for name, shown in empty.items() if tested.get(name)]
  if foreign:
    problem = f'{some(foreign)} occurs only in {evaluation.split}'
  else:
    problem = f'no training image has {some([*empty.values()])}'
  if 'label 0' in empty.values():
    problem += ': labels start at 0 (are these one-based?)'
  raise UserError(
    f'config.data.train_split={train.split!r} of {train.name}: {problem}; add '
    'training images, leave out the class, or name all classes in a file for '
    'config.data.classes, which allows classes without images',
    'data.train_split',
  )


def with_classes(dataset: Dataset, class_names: Sequence[str]) -> Dataset:
  """Returns a data set whose labels are those of a network, matched by name.

  Args:
    dataset: may have fewer classes, in another order; WordNet ids of
      ImageNet's classes stand for their names.
    class_names: of the network; numbers where it does not know them.

  Raises:
    UserError: the data set has classes that the network does not know.
  """
  theirs, names = dataset.class_names, tuple(class_names)
  if theirs == names[: len(theirs)]:
    return dataset
  if len(theirs) == len(names) and names == tuple(map(str, range(len(names)))):
    return dataset
  if not set(theirs) <= set(names):
    ids = imagenet.names_by_id()
    theirs = tuple(ids.get(name, name) for name in theirs)
  unknown = [name for name in theirs if name not in names]
  if unknown:
    raise UserError(
      f'config.data: {dataset.name} has the classes {some(unknown)}, which '
      f'this network does not know: it has {some(names)}; choose the data that '
      'it was trained for, with config.data.source, data_dir and eval_split, '
      'and give config.data.classes again if it was trained with that file'
    )
  labels = np.array([names.index(name) for name in theirs], np.int32)
  return dataset._replace(
    class_names=names,
    num_classes=len(names),
    labels=None if dataset.labels is None else labels[dataset.labels],
    read=_Chosen(dataset, labels=labels),
  )


def read_labels(dataset: Dataset) -> np.ndarray:
  """Returns all labels, int32 [num_examples].

  A source that does not keep them apart reads its images too.
  """
  if dataset.labels is not None:
    return dataset.labels
  parts = [
    dataset.read(np.arange(first, min(first + _CHUNK, dataset.num_examples)))[1]
    for first in range(0, dataset.num_examples, _CHUNK)
  ]
  return np.concatenate(parts)


def first_of_each_class(dataset: Dataset, count: int) -> Dataset:
  """Returns the first `count` examples of each class, in the same order.

  Raises:
    UserError: a class has fewer.
  """
  labels = read_labels(dataset)
  counts = np.bincount(labels, minlength=dataset.num_classes)
  if counts.min() < count:
    few = [
      f'{dataset.class_names[i]} ({counts[i]:,})'
      for i in np.flatnonzero(counts < count)
    ]
    raise UserError(
      f'config.data.per_class={count}: {dataset.name} {dataset.split} has '
      f'fewer images of {some(few)}; choose at most {counts.min()}, or 0: all'
    )
  kept = np.sort(
    np.concatenate(
      [np.flatnonzero(labels == k)[:count] for k in range(dataset.num_classes)]
    )
  )
  return dataset._replace(
    num_examples=len(kept),
    labels=labels[kept],
    read=_Chosen(dataset, examples=kept),
  )


def balanced_weights(labels: np.ndarray, num_classes: int) -> list[float]:
  """Returns N / (K n_k) for each class k: each class weighs as much in a loss.

  Args:
    labels: int [N].
    num_classes: K.

  Returns:
    K numbers with four digits after the point, 0 for a class without images;
    their mean over the images is 1.
  """
  counts = np.bincount(labels, minlength=num_classes)
  present = np.count_nonzero(counts)
  weights = len(labels) / (present * np.maximum(counts, 1)) * (counts > 0)
  return weights.round(4).tolist()
