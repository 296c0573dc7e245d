"""Feature visualisation: images that excite channels, classes and layers.

Gradient ascent on the image (Olah et al., 2017, "Feature Visualization",
https://distill.pub/2017/feature-visualization), as in their tool lucid:

  objectives       what is maximised: channels, classes, layers, sums of them
  parametrisation  the variables that make an image: Fourier coefficients
  transforms       small random movements, so that no single pixel matters
  forward          the network as a function of float images of any size
  render           the ascent, for a batch of images on all devices
  dream            DeepDream: a photo, changed over several sizes
  sheet            pictures with labels, as one picture
"""

from googlenet.tools.visualize.dream import dream
from googlenet.tools.visualize.render import Rendered, render

__all__ = ['Rendered', 'dream', 'render']
