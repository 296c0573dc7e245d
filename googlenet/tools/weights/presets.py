"""How the published weights of ImageNet see images, and their classes.

Where the values are from:
torchvision: `transforms` of the `Weights` in torchvision/models, with what
  `transform_input=True` makes of their mean and deviation.
timm, gluon: `default_cfgs` of `inception_v3.tv_in1k` and
  `inception_v3.gluon_in1k` in timm/models/inception_v3.py, whose crop of 0.875
  becomes floor(299 / 0.875). Of Gluon's own file, timm has the PyTorch form.
caffe: transform_param in bvlc_googlenet/train_val.prototxt, and
  examples/imagenet/create_imagenet.sh, which resizes to 256x256. OpenCV resizes
  without a wider filter for smaller images, Pillow with one.
lucid: `image_value_range` in lucid/modelzoo/other_models/InceptionV1.py, and
  TensorFlow's examples for inception5h, which squeeze a picture to 224x224
  (LabelImage.java, without a wider filter too). Of 1,008 outputs the first is
  `dummy` in lucid's labels, then come the classes in the order of ImageNet's
  development kit; the last seven are unused.
pytorch_fid: the nodes `Sub` and `Mul` of the graph of 2015, (x - 128) / 128, as
  in torch-fidelity and clean-fid, and the latter's filter; `tools.fid` has the
  ways to resize. The outputs are those of lucid's, by the label map of
  TensorFlow's classify_image (n01440764 is 449, as in the development kit).
"""

from typing import NamedTuple

from googlenet.data import imagenet
from googlenet.errors import UserError, did_you_mean

NUM_CLASSES = 1000
_DEVKIT_OUTPUTS = 1008  # of which 1 to 1,000 are classes

Colour = tuple[float, float, float]

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MINUS_ONE_TO_ONE = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class Preset(NamedTuple):
  """How a framework prepares images for one network.

  Attributes:
    image_size: side of the centre crop, in pixels.
    resize: short side before that crop, in pixels.
    mean: of RGB in 0..1.
    std: of RGB in 0..1.
    interpolation: a value of `data.interpolation`.
    squeeze: whether the long side becomes `resize` pixels too.
    background: number of outputs before the first class that files may have.
    is_devkit: whether output i is the class with `ILSVRC2012_ID` i; otherwise
      classes are in the order of WordNet ids.
  """

  image_size: int
  resize: int
  mean: Colour
  std: Colour
  interpolation: str = 'bilinear'
  squeeze: bool = False
  background: int = 0
  is_devkit: bool = False

  def fields(self, image_size: int) -> dict[str, object]:
    """Returns fields of the `data` section.

    Args:
      image_size: side of the crop, in pixels; other sizes than that of the
        preset have a short side of the same proportion.
    """
    resize = self.resize
    if image_size != self.image_size:
      resize = round(image_size * resize / self.image_size)
    return {
      'resize': resize,
      'mean': self.mean,
      'std': self.std,
      'interpolation': self.interpolation,
      'squeeze': self.squeeze,
    }

  def class_names(self, num_classes: int) -> tuple[str, ...]:
    """Returns ImageNet's names of the outputs, if they are its classes.

    Args:
      num_classes: number of outputs of a network.

    Returns:
      A name per output, '' for one that is no class; there may be outputs
      without names at the end. (): the outputs are not those of ImageNet.
    """
    if self.is_devkit:
      names = ('', *imagenet.names_in_devkit_order())
      return names if num_classes == _DEVKIT_OUTPUTS else ()
    names = tuple(imagenet.names_by_id().values())
    return names if num_classes == NUM_CLASSES else ()


_LUCID = Preset(
  224,
  224,
  (117 / 255,) * 3,
  (1 / 255,) * 3,
  squeeze=True,
  is_devkit=True,
)
_PYTORCH_FID = Preset(
  299,
  299,
  (128 / 255,) * 3,
  (128 / 255,) * 3,
  interpolation='bicubic',
  squeeze=True,
  is_devkit=True,
)

# Presets by value of `config.model.variant`.
PRESETS: dict[str, dict[str, Preset]] = {
  'torchvision': {'torchvision': Preset(224, 256, *_MINUS_ONE_TO_ONE)},
  'inception_v3': {
    'torchvision': Preset(299, 342, *_MINUS_ONE_TO_ONE),
    # Its older ports of TF-slim have 1,001 outputs, of which the first is none
    # of ImageNet's classes.
    'timm': Preset(
      299, 341, *_MINUS_ONE_TO_ONE, interpolation='bicubic', background=1
    ),
    'gluon': Preset(299, 341, *_IMAGENET, interpolation='bicubic'),
  },
  'inception_fid': {'pytorch_fid': _PYTORCH_FID},
  'inception5h': {'lucid': _LUCID},
  'inception5h_lucent': {'lucid': _LUCID},
  'alexnet_torchvision': {'torchvision': Preset(224, 256, *_IMAGENET)},
  'vgg16': {'torchvision': Preset(224, 256, *_IMAGENET)},
  'paper': {
    'caffe': Preset(
      224,
      256,
      (123 / 255, 117 / 255, 104 / 255),
      (1 / 255, 1 / 255, 1 / 255),
      squeeze=True,
    )
  },
}
NAMES = tuple(dict.fromkeys(name for of in PRESETS.values() for name in of))


def choose(variant: str, name: str) -> tuple[str, Preset | None]:
  """Returns the preset of --preset and its name.

  Args:
    variant: a key of `PRESETS`.
    name: value of --preset; '': the only one that the network has.

  Returns:
    ('', None) if no name is given and the network has several presets.

  Raises:
    UserError: there is no such preset of this network.
  """
  known = PRESETS[variant]
  if not name:
    return next(iter(known.items())) if len(known) == 1 else ('', None)
  if name not in known:
    raise UserError(
      f'--preset={name} is not one of config.model.variant={variant!r}'
      f'{did_you_mean(name, known)}: it takes {" or ".join(known)}'
    )
  return name, known[name]


def missing(variant: str) -> UserError:
  """Returns the error for weights whose images are not known."""
  return UserError(
    f'--preset is missing: weights of config.model.variant={variant!r} by '
    f'{", ".join(PRESETS[variant])} have the same names and were trained on '
    'images that were prepared differently; say whose these are, like '
    f'--preset={next(iter(PRESETS[variant]))}, or give all of '
    '--config.data.mean, --config.data.std and --config.data.resize'
  )
