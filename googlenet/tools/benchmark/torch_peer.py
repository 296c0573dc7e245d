"""The peer process of PyTorch: it measures the same network in torch.

It needs only torch and the standard library, so any Python with torch can run
this file. It reads a job as JSON from stdin and writes each result as a line of
JSON to stdout as soon as it is measured (see `process`).

It does a little less work than this project: images are already resized and
normalized, the same batch is used for every step, and gradients are not
clipped.

Padding is symmetric, which is fast in torch; this project uses SAME. Where the
two differ, they are mirror images: this network with mirrored kernels, on a
mirrored image, gives the logits of the JAX network.
"""

import collections
import contextlib
import json
import math
import statistics
import sys
import time

import torch

try:
  import resource
except ImportError:  # Windows
  resource = None
from torch import nn
from torch.nn import functional as F

_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
# Steps queued on the device behind the running one.
_IN_FLIGHT = {'cpu': 0, 'cuda': 2}
# As in clock.py: steps are timed for about one second, but at most 200 of them
# unless the job asks for more.
_ENOUGH_SECONDS = 1.0
_ENOUGH_STEPS = 200


class ConvRelu(nn.Module):
  """A convolution with bias and ReLU, and the output size of SAME padding."""

  def __init__(self, channels, width, kernel_size, stride=1):
    super().__init__()
    self.conv = nn.Conv2d(
      channels, width, kernel_size, stride, kernel_size // 2
    )

  def forward(self, x):
    return F.relu(self.conv(x))


class Inception(nn.Module):
  """Four parallel branches, concatenated along channels."""

  def __init__(self, channels, w_1, w_3_reduce, w_3, w_5_reduce, w_5, w_pool):
    super().__init__()
    self.conv_1x1 = ConvRelu(channels, w_1, 1)
    self.conv_3x3_reduce = ConvRelu(channels, w_3_reduce, 1)
    self.conv_3x3 = ConvRelu(w_3_reduce, w_3, 3)
    self.conv_5x5_reduce = ConvRelu(channels, w_5_reduce, 1)
    self.conv_5x5 = ConvRelu(w_5_reduce, w_5, 5)
    self.pool_proj = ConvRelu(channels, w_pool, 1)

  def forward(self, x):
    return torch.cat(
      (
        self.conv_1x1(x),
        self.conv_3x3(self.conv_3x3_reduce(x)),
        self.conv_5x5(self.conv_5x5_reduce(x)),
        self.pool_proj(F.max_pool2d(x, 3, 1, 1)),
      ),
      1,
    )


class Network(nn.Module):
  """The rows of a job, then a global mean and the classifier.

  Args:
    rows: a list of [name, kind, *numbers]: `conv` with width, kernel size and
      stride; `pool` with window and stride; `inception` with its six widths.
      `name` is the path of the row's parameters in the JAX network.
    channels: of the images [B, C, H, W].
    num_classes: number of logits.
  """

  def __init__(self, rows, channels, num_classes):
    super().__init__()
    self.names, layers = [], []
    for name, kind, *numbers in rows:
      if kind == 'conv':
        layers.append(ConvRelu(channels, *numbers))
        channels = numbers[0]
      elif kind == 'pool':
        window, stride = numbers
        layers.append(nn.MaxPool2d(window, stride, window // 2))
      elif kind == 'inception':
        layers.append(Inception(channels, *numbers))
        channels = numbers[0] + numbers[2] + numbers[4] + numbers[5]
      else:
        raise ValueError(f'{kind!r} is not a kind of row')
      self.names.append(name)
    self.features = nn.Sequential(*layers)
    self.logits = nn.Linear(channels, num_classes)

  def forward(self, x):
    return self.logits(self.features(x).mean((2, 3)))


def initialize(network):
  """He initialization and zero biases, for activations of realistic size."""
  for module in network.modules():
    if isinstance(module, (nn.Conv2d, nn.Linear)):
      nn.init.kaiming_normal_(module.weight, nonlinearity='relu')
      nn.init.zeros_(module.bias)


def make_optimizer(network, config):
  """Returns SGD with the momentum and decay of the `optimizer` section."""
  return torch.optim.SGD(
    network.parameters(),
    config['learning_rate'],
    momentum=config['momentum'],
    nesterov=config['nesterov'] and config['momentum'] > 0,
    weight_decay=config['weight_decay'],
  )


def intervals(call, steps, device):
  """Returns the seconds of each of `steps` calls, after an untimed one.

  On a GPU the host runs ahead of the device, as it does in training.
  """
  in_flight, pending, ends = _IN_FLIGHT[device], collections.deque(), []
  for _ in range(1 + steps + in_flight):
    call()
    done = None
    if device == 'cuda':
      done = torch.cuda.Event()
      done.record()
    pending.append(done)
    if len(pending) > in_flight:
      done = pending.popleft()
      if done is not None:
        done.synchronize()
      ends.append(time.perf_counter())
  return [after - before for before, after in zip(ends, ends[1:])]  # noqa: B905


def num_steps(times, at_least):
  """Returns how many steps to time, given the seconds of a few steps."""
  step = max(statistics.median(times), 1e-9)
  return max(at_least, min(math.ceil(_ENOUGH_SECONDS / step), _ENOUGH_STEPS))


def step_seconds(call, at_least, device):
  """Returns the median seconds of a call, over `num_steps` calls."""
  times = intervals(call, at_least, device)
  count = num_steps(times, at_least)
  if count > at_least:
    times = intervals(call, count, device)
  return statistics.median(times)


def first_call(call, device):
  """Returns the seconds of a call that compiles."""
  start = time.perf_counter()
  call()
  if device == 'cuda':
    torch.cuda.synchronize()
  return time.perf_counter() - start


def peak_bytes(device):
  """Returns the peak memory so far: resident, or allocated on the GPU."""
  if device == 'cuda':
    return torch.cuda.max_memory_allocated()
  if resource is None:
    return None
  unit = 1 if sys.platform == 'darwin' else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def make_calls(job, network, batch_size):
  """Returns (train, infer): functions that run one step on a fixed batch."""
  device, dtype = job['device'], _DTYPES[job['dtype']]
  layout = (
    torch.channels_last if job['channels_last'] else torch.contiguous_format
  )
  network.to(device).to(memory_format=layout)
  generator = torch.Generator().manual_seed(0)
  height, width, channels = job['image_shape']
  images = torch.randn(batch_size, channels, height, width, generator=generator)
  images = images.to(device).to(memory_format=layout)
  labels = torch.randint(
    job['num_classes'], (batch_size,), generator=generator
  ).to(device)
  optimizer = make_optimizer(network, job['optimizer'])
  # Compile for each batch size instead of one program for all.
  model = torch.compile(network, dynamic=False) if job['compile'] else network

  def cast():
    if dtype is torch.float32:
      return contextlib.nullcontext()
    return torch.autocast(device, dtype=dtype)

  def train():
    optimizer.zero_grad()
    with cast():
      loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()

  def infer():
    with torch.inference_mode(), cast():
      model(images)

  return train, infer


def tell(**message):
  """Writes a result as one line to stdout, without buffering."""
  print(json.dumps(message), flush=True)


def measure_size(job, network, batch_size, started):
  """Measures training, then inference; `started` only for the first size."""
  device, steps, size = job['device'], job['steps'], str(batch_size)
  train, infer = make_calls(job, network, batch_size)
  first_s = first_call(train, device)
  if started is not None:
    tell(start_s=time.monotonic() - started)
  train_s = step_seconds(train, steps, device)
  measured = {
    'train_images_per_s': batch_size / train_s,
    'compile_s': max(first_s - train_s, 0.0),
    'peak_bytes': peak_bytes(device),
  }
  tell(sizes={size: measured})
  first_call(infer, device)
  infer_s = step_seconds(infer, steps, device)
  tell(sizes={size: {'infer_images_per_s': batch_size / infer_s}})


def measure(job):
  """Measures the batch sizes of a job; an error keeps the results so far."""
  tell(framework=f'torch {torch.__version__}', dtype=job['dtype'])
  try:
    if job['device'] == 'cuda' and not torch.cuda.is_available():
      raise RuntimeError('this torch finds no CUDA device')
    torch.manual_seed(0)
    tell(threads=torch.get_num_threads())
    started = job['started']
    for batch_size in job['batch_sizes']:
      network = Network(job['rows'], job['image_shape'][2], job['num_classes'])
      initialize(network)
      tell(parameters=sum(p.numel() for p in network.parameters()))
      measure_size(job, network, batch_size, started)
      started = None
  except Exception as error:  # torch and its compiler raise many types
    lines = str(error).strip().splitlines() or ['']
    tell(error=f'{type(error).__name__}: {lines[0]}')


def main():
  """Measures the job on stdin."""
  measure(json.load(sys.stdin))


if __name__ == '__main__':
  main()
