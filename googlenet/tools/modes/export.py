"""--mode=export: a run becomes one file that other programs run."""

import json
import os

import jax
import jmp
import ml_collections
import numpy as np

from googlenet.model.initialization import count_parameters
from googlenet.tools.exports import onnx_graph, stablehlo
from googlenet.tools.inference import arrays, outputs, predict, trained
from googlenet.tools.inference.about import about, images_in_words

Config = ml_collections.FrozenConfigDict

FORMATS = {
  '.stablehlo': 'stablehlo',
  '.onnx': 'onnx',
  '.safetensors': 'safetensors',
}


def run(
  config: Config,
  workdir: str,
  started: float,
  format: str = '',
  output: str = '',
  views: bool = True,
) -> None:
  """Writes the newest checkpoint of a run as one file.

  A StableHLO file cannot describe itself: a file ending in .json beside it
  says what the other formats hold themselves.

  Args:
    config: of the run.
    workdir: of the run; nothing is written there.
    started: unused.
    format: 'stablehlo', 'onnx' or 'safetensors'; '': as `output` ends.
    output: path of a new file.
    views: whether a StableHLO program averages over the views that the run is
      evaluated with. One of ONNX computes each image once.

  Raises:
    UserError: the run has no checkpoint, the output cannot be made, a library
      is missing, or the format does not know a layer; nothing is written.
  """
  del started
  outputs.check_one_process('export', jax.process_count())
  if output:
    outputs.check_new(output)
  format = outputs.format_of(output, format, FORMATS)
  outputs.check_new(output)
  beside = f'{output}.json'
  if format == 'stablehlo':
    outputs.check_new(beside)
  net = trained.load_run(workdir, config)
  chosen = predict.views_of(config.eval, views)
  if format == 'onnx' or chosen.crops > 1 and format == 'stablehlo':
    # A graph has no views so far; crops are cut out of files.
    chosen = predict.ONE_VIEW
  if format == 'safetensors':
    chosen = net.views  # those of the config in the file
    arrays.write(output, net)
    lines = [f"read by  googlenet.load('{output}'), or as arrays"]
  elif format == 'onnx':
    data = onnx_graph.export(net)
    with outputs.written_aside(output) as file:
      file.write(data)
    lines = [f'run by   onnxruntime 1.17 or newer (opset {onnx_graph.OPSET})']
    policy = jmp.get_policy(config.train.precision)
    if np.dtype(policy.compute_dtype) != np.float32:
      lines.append(
        'computes in float32, where the run does in '
        f'{config.train.precision}: logits differ by its rounding'
      )
  else:
    data = stablehlo.export(net, chosen)
    told = json.dumps(about(net, chosen), indent=2) + '\n'
    with (
      outputs.written_aside(beside, 'w') as told_file,
      outputs.written_aside(output) as file,
    ):
      told_file.write(told)
      file.write(data)
    lines = [
      f'run by   JAX {jax.__version__} or newer, on '
      f'{", ".join(stablehlo.PLATFORMS)}; for an older JAX export with that',
      f'told in  {beside}',
    ]
  print(
    f'model    {output}: {format}, {os.path.getsize(output) / 1e6:,.1f} MB, '
    f'{config.model.variant}, {count_parameters(net.params):,} parameters, '
    f'{config.model.num_classes} classes'
  )
  print(f'images   {images_in_words(net)}')
  print('\n'.join([*lines, *_views_in_words(net.views, chosen)]))
  print(f'from     {net.path}: step {net.step:,}')


def _views_in_words(
  evaluated: predict.Views, exported: predict.Views
) -> list[str]:
  """Returns a line where evaluation averages more than one view."""
  if evaluated.count == 1:
    return []
  of = f'{evaluated.count} views of each image ({evaluated.fields})'
  if exported == evaluated:
    return [
      f'views    averages {of}, as in evaluation, at as many times the cost'
    ]
  return [
    f'views    computes each image once; evaluation averages {of}, which is '
    'more accurate and costs as many times as much'
  ]
