"""The flags of the modes, with their defaults and help."""

import functools

from absl import flags


class _OptionalText(flags.Flag):
  """A flag for text, or without any: --name means --name=all."""

  def __init__(self, name: str, help_string: str):
    super().__init__(
      flags.ArgumentParser(),
      flags.ArgumentSerializer(),
      name,
      '',
      help_string,
      boolean=True,  # so that absl does not take the next argument for its text
    )

  def _parse(self, argument: str) -> str:
    return {'true': 'all', 'false': ''}.get(argument, argument)


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of all modes and of multi-process runs."""
  string = functools.partial(flags.DEFINE_string, flag_values=values)
  integer = functools.partial(flags.DEFINE_integer, flag_values=values)
  boolean = functools.partial(flags.DEFINE_bool, flag_values=values)
  boolean(
    'allow_config_change',
    False,
    'continue a run with another config (same network, data and seed)',
  )
  string(
    'sweep',
    '',
    "fields and their values, like 'optimizer.learning_rate=0.05,0.1;"
    "seed=0,1,2'",
  )
  string('shard', '', 'part of the trials to run: 0/8 to 7/8, one per machine')
  boolean('dry_run', False, 'list the trials and their progress, train none')
  string(
    'checkpoint',
    'last',
    'which one of each run: last, best, a step number, or all',
  )
  string(
    'average',
    'predictions',
    'what to average over several checkpoints: predictions or weights',
  )
  flags.DEFINE_flag(
    _OptionalText(
      'corruptions',
      'also score corrupted images: all, or some of gaussian_noise, '
      'gaussian_blur, contrast, brightness, rotation',
    ),
    values,
  )
  string(
    'calibrate',
    '',
    "fit a temperature on another split, like 'test[:5000]', and show what it "
    'changes',
  )
  flags.DEFINE_float(
    'temperature',
    1.0,
    'divide logits by this number, which --calibrate finds',
    flag_values=values,
  )
  string(
    'block',
    '',
    'block whose branches are shown; default: the first (explain: all)',
  )
  integer(
    'image_index',
    0,
    'image of data.eval_split that is shown (explain: the first)',
  )
  integer('num_images', 4, 'number of images of data.eval_split to explain')
  string(
    'method',
    '',
    'how to explain: gradient, input_x_gradient, smoothgrad, '
    'integrated_gradients, grad_cam, class_activation_map, occlusion, '
    'branches, channels; separated by commas; default: '
    'grad_cam,integrated_gradients',
  )
  string(
    'class',
    '',
    'class to explain, by name or index; default: the predicted one of each '
    'image',
  )
  string(
    'against',
    '',
    'explain: class whose logit is subtracted, by name or index; fid: images, '
    'an .npz of images, or statistics',
  )
  string(
    'resize',
    '',
    'how images are resized for FID: clean (the default), legacy_pytorch or '
    'legacy_tensorflow',
  )
  string(
    'metrics',
    '',
    'fid, kid, is, separated by commas; default: all that can be computed',
  )
  integer('subsets', 100, 'subsets of the images of which KID is the mean')
  integer('subset_size', 1000, 'images of each subset of KID')
  integer('splits', 10, 'parts of the images of which IS is the mean')
  string('layer', '', 'map of grad_cam and channels; default: the last one')
  string(
    'baseline',
    '',
    'what stands for nothing: black, mean or blurred; default: black for '
    'integrated_gradients, mean for occlusion',
  )
  integer('window', 0, 'side of what occlusion covers; 0: an eighth')
  integer('stride', 0, 'pixels between windows of occlusion; 0: half of one')
  boolean('sanity', False, 'compare maps with those of randomized networks')
  boolean('compare', False, 'print one line per network')
  boolean('points', False, 'list every point that can be read or replaced')
  string(
    'equal_to',
    '',
    'config file or run: find the width with as many multiply-adds as its '
    'network',
  )
  integer('port', 7860, 'port of the page at 127.0.0.1; 0: any free port')
  string(
    'images',
    '',
    'files, folders, patterns like photos/*.jpg; -: a list on stdin',
  )
  string(
    'end_points',
    '',
    'points, separated by commas (--mode=summary --points lists them); '
    'default: the last stage (similarity: all layers; probe: all stages)',
  )
  string(
    'channels',
    '',
    'points with a channel, a range or a class: inception_4c:7, stage_3:0-15, '
    'logits:Bag',
  )
  string(
    'objective',
    '',
    'what images maximize: channel, neuron, layer or caricature; default: '
    'channel, or layer for a whole point of an --image',
  )
  string('image', '', 'photo that is changed (DeepDream); default: noise')
  integer(
    'steps',
    0,
    'steps of gradient ascent; default: 256, photos 10 (explain: gradients of '
    'smoothgrad and integrated_gradients; 64)',
  )
  integer('seed', 0, 'of what is random: noise, movements, order, subsets')
  integer('size', 0, 'pixels of a side; default: of the network, photos 512')
  integer('frames', 0, 'images on the way to keep, in a .gif or folder')
  string('from', '', 'earlier point; default: the row before the channels')
  string('to', '', 'later point: what the channels feed, not what feeds them')
  string(
    'projection',
    'pca',
    'how the plane of an atlas is made: pca, or umap if it is installed',
  )
  integer(
    'grid',
    16,
    'cells along each side of an atlas',
    lower_bound=2,
    upper_bound=128,
  )
  boolean('render', False, 'make an image for each cell of an atlas')
  integer(
    'top_k',
    5,
    'number of classes per image, of images per channel, or of connections '
    'of each sign, to show',
  )
  integer('k', 20, 'number of nearest neighbours that vote')
  boolean('flatten', False, 'probe whole maps; default: means over positions')
  boolean('visualize', False, 'also make an image that excites each channel')
  integer('least', 0, 'number of images that excite a channel least')
  string('format', '', 'output format, if the file name does not show it')
  string('output', '', 'new file; without it, predict prints to the console')
  boolean(
    'views',
    True,
    'average over the views of an image that evaluation uses (eval.flip, '
    'eval.shift, eval.crops); false: one view',
  )
  string(
    'precision',
    'float32',
    'what an exported network computes in: float32, or run (train.precision)',
  )
  string('weights', '', 'weight file of another framework to read or write')
  string(
    'preset',
    '',
    'whose weights these are: torchvision, timm, gluon, pytorch_fid, lucid or '
    'caffe; sets how images are prepared',
  )
  string('coordinator_address', None, 'address of process 0, host:port')
  integer('num_processes', None, 'number of processes')
  integer('process_id', None, 'index of this process, from 0')
  integer(
    'heartbeat_timeout_seconds',
    30,
    'if a process is silent for this long, or has not come, the others end',
    lower_bound=1,
    upper_bound=3600,
  )
