"""Reading what a run has written, and comparing two runs."""

import json
import pathlib

import numpy as np
from tensorboardX.proto import event_pb2

from googlenet.io import checkpoint

SPEED = 'train/images_per_second'
# How lines begin that only say what a process does.
PROGRESS = (
  *('mode     ', 'compile  ', 'measure  ', 'images   ', 'read     '),
  *('explain :', 'probe    '),
)


def files_under(folder: pathlib.Path) -> list[str]:
  return sorted(str(p.relative_to(folder)) for p in folder.rglob('*'))


def problems(stderr: str) -> str:
  """Returns what a process said of problems, without lines of progress."""
  lines = stderr.splitlines(keepends=True)
  return ''.join(line for line in lines if not line.startswith(PROGRESS))


def records(workdir: pathlib.Path) -> list[dict]:
  """Returns the lines of metrics.jsonl, but for what a clock says."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  found = [json.loads(line) for line in lines]
  for record in found:
    record.pop(SPEED, None)
  return found


def losses(workdir: pathlib.Path) -> np.ndarray:
  """Returns loss and norm of the gradient of each record, [records, 2]."""
  return np.array(
    [
      (r['train/loss'], r['train/grad_norm'])
      for r in records(workdir)
      if 'train/loss' in r
    ]
  )


def all_events(workdir: pathlib.Path) -> list[tuple[int, str, object]]:
  """Returns (step, name, value) of the event files, as TensorBoard reads them.

  Where a run was continued, what earlier files hold of the steps from there on
  is dropped. The value of an image or a histogram is its protobuf message.
  """
  found = []
  for path in sorted((workdir / 'tensorboard').glob('*tfevents*')):
    data = path.read_bytes()
    while data:
      length = int.from_bytes(data[:8], 'little')
      event = event_pb2.Event.FromString(data[12 : 12 + length])
      if event.session_log.status == event_pb2.SessionLog.START:
        found = [kept for kept in found if kept[0] < event.step]
      found += [
        (event.step, v.tag, getattr(v, v.WhichOneof('value')))
        for v in event.summary.value
        if v.tag != SPEED
      ]
      data = data[16 + length :]
  return found


def events(workdir: pathlib.Path) -> list[tuple[int, str, float]]:
  """Returns the scalars among them."""
  return [event for event in all_events(workdir) if type(event[2]) is float]


def arrays(path: pathlib.Path) -> dict[str, bytes]:
  """Returns the arrays of a checkpoint; `about` tells times."""
  with np.load(path, allow_pickle=False) as file:
    return {k: file[k].tobytes() for k in file.files if k != 'about'}


def result(workdir: pathlib.Path) -> dict:
  """Returns result.json, but for what a clock says."""
  found = json.loads((workdir / 'result.json').read_text())
  return {k: v for k, v in found.items() if 'seconds' not in k and k != SPEED}


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
  """Compares two finished runs bit for bit: all that is no time."""
  assert records(one) == records(other)
  steps = [(r['step'], 'eval/loss' in r) for r in records(one)]
  assert len(set(steps)) == len(steps), 'a step stands there twice'
  assert all_events(one) == all_events(other)
  assert events(one) == [
    (r['step'], name, float(np.float32(value)))
    for r in records(one)
    for name, value in r.items()
    if name not in ('step', 'epoch')
  ]
  assert_same_end(one, other)


def assert_same_end(one: pathlib.Path, other: pathlib.Path) -> None:
  """Compares results and last states of two finished runs bit for bit.

  The log of a run that was stopped by a signal has one record more.
  """
  assert result(one) == result(other)
  newest = checkpoint.paths(one)[0], checkpoint.paths(other)[0]
  assert newest[0].name == newest[1].name
  assert arrays(newest[0]) == arrays(newest[1])
