"""Feature visualization: images that excite channels, classes and layers.

Gradient ascent on the image (Olah et al., 2017, "Feature Visualization",
https://distill.pub/2017/feature-visualization), as in their tool lucid:

  objectives       what is maximized: channels, classes, layers, sums of them
  parametrization  the variables that make an image: Fourier coefficients
  transforms       small random movements, so that no single pixel matters
  forward          the network as a function of float images of any size
  ascent           the programs of gradient ascent, on all devices
  render           images from noise
  dream            DeepDream: a photo, changed over several sizes
  sheet            pictures with labels, as one picture

  from googlenet.tools.visualize import objectives, render

  net = googlenet.load('pretrained/fmnist28_long')
  made = render.render(net, objectives.channel('inception_4c', [3, 7]))
"""
