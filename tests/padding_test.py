"""Placement of windows: against the frameworks' rules, and what it refuses."""

import pytest

from googlenet.kernels.padding import placement


@pytest.mark.parametrize(
  ('size', 'window', 'stride', 'padding', 'expected'),
  [
    (96, 7, 2, 'SAME', (48, 2, 3)),
    (224, 7, 2, 3, (112, 3, 2)),
    (299, 3, 2, 'VALID', (149, 0, 0)),
    (112, 3, 2, 'CEIL', (56, 0, 1)),
    (7, 3, 2, 'CEIL', (3, 0, 0)),  # 'SAME' would have four
    (7, 3, 2, 'SAME', (4, 1, 1)),
    (14, 5, 3, 'VALID', (4, 0, 0)),
    (14, 2, 2, 'CEIL', (7, 0, 0)),
    (3, 2, 2, 'CEIL', (2, 0, 1)),
    # Wider strides than windows: as Caffe and PyTorch, none begins outside.
    (5, 1, 3, 'CEIL', (2, 0, 0)),
    (7, 2, 4, 'CEIL', (2, 0, 0)),
    (6, 2, 5, 'CEIL', (2, 0, 1)),
    (4, 1, 2, 'CEIL', (2, 0, 0)),
  ],
)
def test_windows_and_padding(size, window, stride, padding, expected):
  assert placement(size, window, stride, padding) == expected


@pytest.mark.parametrize('padding', ['same', -1, 1.5, None])
def test_unknown_padding_is_refused(padding):
  with pytest.raises(ValueError, match='SAME, VALID, CEIL'):
    placement(9, 3, 1, padding)


@pytest.mark.parametrize(('size', 'padding'), [(2, 'VALID'), (1, 'CEIL')])
def test_a_window_that_does_not_fit_is_refused(size, padding):
  with pytest.raises(ValueError, match='a window of 3 does not fit'):
    placement(size, 3, 2, padding)
