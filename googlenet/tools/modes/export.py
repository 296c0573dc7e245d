"""--mode=export: writes a run as one file that other programs can use."""

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

  The file contains a description of the network. StableHLO has no place for
  it, so it is written to a .json file beside it.

  Args:
    config: of the run.
    workdir: of the run; nothing is written there.
    started: unused.
    format: 'stablehlo', 'onnx' or 'safetensors'; '': given by the ending of
      `output`.
    output: path of a new file.
    views: whether a StableHLO program averages over the views of evaluation;
      an ONNX program always computes each image once.

  Raises:
    UserError: the run has no checkpoint, the output cannot be made, a library
      is missing, or the format cannot represent a layer; nothing is written.
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
    # The ONNX graph implements no views, and crops are cut out of files.
    chosen = predict.ONE_VIEW
  if format == 'safetensors':
    chosen = net.views  # `net.predict` takes them from the config in the file
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
        'computes in float32, while the run uses '
        f'{config.train.precision}: logits differ by rounding'
      )
  else:
    data = stablehlo.export(net, chosen)
    description = json.dumps(about(net, chosen), indent=2) + '\n'
    with (
      outputs.written_aside(beside, 'w') as description_file,
      outputs.written_aside(output) as file,
    ):
      description_file.write(description)
      file.write(data)
    lines = [
      f'run by   JAX {jax.__version__} or newer, on '
      f'{", ".join(stablehlo.PLATFORMS)}; an older JAX needs an export by that '
      'version',
      f'about    {beside}: description of images, outputs and classes',
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
  """Returns a line about views, if evaluation averages several."""
  if evaluated.count == 1:
    return []
  of = f'{evaluated.count} views of each image ({evaluated.fields})'
  if exported == evaluated:
    return [
      f'views    averages {of}, as in evaluation, '
      f'which takes {evaluated.count} times as long'
    ]
  return [
    f'views    computes each image once; evaluation averages {of}, which is '
    f'more accurate and takes {evaluated.count} times as long'
  ]
