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
  if format == 'stablehlo':
    outputs.check_new(f'{output}.json')
  net = trained.load_run(workdir, config)
  lines = _WRITERS[format](net, output, predict.views_of(config.eval, views))
  print(
    f'model    {output}: {format}, {os.path.getsize(output) / 1e6:,.1f} MB, '
    f'{config.model.variant}, {count_parameters(net.params):,} parameters, '
    f'{config.model.num_classes} classes'
  )
  print(f'images   {images_in_words(net)}')
  print('\n'.join(lines))
  print(f'from     {net.path}: step {net.step:,}')


def _write_arrays(
  net: trained.Trained, output: str, views: predict.Views
) -> list[str]:
  del views  # those of the config, which is in the file
  arrays.write(output, net)
  lines = [f"read by  googlenet.load('{output}'), or as arrays"]
  if net.views.count > 1:
    lines.append(
      f'views    net.predict(images) averages {net.views.count} of each image '
      f'({net.views.fields}), as in evaluation; net.predict(images, '
      'views=False) computes it once'
    )
  return lines


def _write_onnx(
  net: trained.Trained, output: str, views: predict.Views
) -> list[str]:
  del views  # the graph has none
  data = onnx_graph.export(net)
  with outputs.written_aside(output) as file:
    file.write(data)
  lines = [f'run by   onnxruntime 1.17 or newer (opset {onnx_graph.OPSET})']
  policy = jmp.get_policy(net.config.train.precision)
  if np.dtype(policy.compute_dtype) != np.float32:
    lines.append(
      'computes in float32, where the run does in '
      f'{net.config.train.precision}: logits differ by its rounding'
    )
  return lines + _views_left_out(net, predict.ONE_VIEW)


def _write_stablehlo(
  net: trained.Trained, output: str, views: predict.Views
) -> list[str]:
  if views.crops > 1:  # they are cut out of files, which a program does not see
    views = predict.ONE_VIEW
  data = stablehlo.export(net, views)
  told = json.dumps(about(net, views), indent=2) + '\n'
  beside = f'{output}.json'
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
  if views.count > 1:
    lines.append(
      f'views    each image is computed {views.count} times ({views.fields}), '
      'as in evaluation; --views=false exports a program that computes it once'
    )
  return lines + _views_left_out(net, views)


_WRITERS = {
  'safetensors': _write_arrays,
  'onnx': _write_onnx,
  'stablehlo': _write_stablehlo,
}


def _views_left_out(net: trained.Trained, views: predict.Views) -> list[str]:
  """Returns a line where a program predicts less accurately than evaluation."""
  if views == net.views:
    return []
  return [
    f'views    each image is computed once; the run is evaluated with the mean '
    f'probabilities of {net.views.count} views ({net.views.fields}), which '
    f'takes {net.views.count} times as long and is more accurate'
  ]
