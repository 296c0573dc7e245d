"""Files of weights: names, layouts, damage; nothing here needs PyTorch."""

import errno
import functools
import json
import os
import pathlib
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, load_config
from networks import model_config
from PIL import Image
from run_files import files_under

import launch
from googlenet import config as config_lib
from googlenet.cli.command_line import completed, parse
from googlenet.errors import UserError
from googlenet.io import array_files, pretrained
from googlenet.model import variants
from googlenet.model.initialization import abstract_init
from googlenet.model.network import make_network
from googlenet.tools.modes import import_weights as import_weights_mode
from googlenet.tools.weights import convert, names, plans
from googlenet.train import messages, setup

# Sizes at which the heads are as those of the other framework.
SIZES = {
  'paper': 224,
  'torchvision': 64,
  'inception_v3': 299,
  'inception_fid': 299,
  'inception5h': 224,
  'inception5h_lucent': 224,
  'alexnet_torchvision': 224,
  'vgg16': 224,
}


@functools.cache
def entries_of(variant, size=None, **changes):
  size = size or SIZES[variant]
  network = make_network(model_config(variant=variant, **changes))
  shapes = abstract_init(network, (size, size, 3))
  scheme = names.SCHEMES[variant]
  return names.make_entries(scheme, network.architecture, *shapes)


def random_arrays(entries, seed=0):
  rng = np.random.default_rng(seed)
  return {
    entry.name: rng.uniform(0.1, 1, entry.shape).astype(np.float32)
    for entry in entries
  }


def run(mode, *flags):
  return launch.main(
    ['launch.py', f'--mode={mode}', '--config.train.compilation_cache=', *flags]
  )


def import_weights(path, workdir, variant='torchvision', *flags, size=0):
  return run(
    'import_weights',
    f'--config={ROOT}/configs/fmnist96.py',
    f'--config.model.variant={variant}',
    f'--config.data.image_size={size or SIZES[variant]}',
    f'--weights={path}',
    f'--workdir={workdir}',
    *flags,
  )


def refused(capfd, code):
  """Returns the line of an error."""
  stderr = capfd.readouterr().err
  assert code == 2, stderr
  assert stderr.startswith('error: ')
  assert stderr.count('\n') == 1
  assert len(stderr) < 10_000
  return stderr


# ---- Names.


@pytest.mark.parametrize(
  ('variant', 'count', 'parameters', 'some'),
  [
    (
      'torchvision',
      4 * 59 + 59 + 10,  # 13,004,888 at 1000 classes, torchvision's page
      13_004_888,
      {
        'conv1.conv.weight': (64, 3, 7, 7),
        'inception3a.branch3.1.conv.weight': (32, 16, 3, 3),
        'inception5b.branch4.1.bn.running_var': (128,),
        'aux2.conv.conv.weight': (128, 528, 1, 1),
        'aux1.fc1.weight': (1024, 2048),
        'fc.weight': (1000, 1024),
      },
    ),
    (
      'inception_v3',
      None,
      27_161_264,
      {
        'Conv2d_1a_3x3.conv.weight': (32, 3, 3, 3),
        'Mixed_6c.branch7x7dbl_2.conv.weight': (160, 160, 7, 1),
        'Mixed_7b.branch3x3dbl_3b.conv.weight': (384, 384, 3, 1),
        'AuxLogits.conv1.conv.weight': (768, 128, 5, 5),
        'AuxLogits.fc.weight': (1000, 768),
        'fc.bias': (1000,),
      },
    ),
    (
      'inception_fid',
      5 * 94 + 2,
      23_834_568,
      {
        'Conv2d_1a_3x3.conv.weight': (32, 3, 3, 3),
        'Mixed_7c.branch_pool.bn.running_var': (192,),
        'fc.weight': (1000, 2048),
      },
    ),
    (
      'inception5h',
      2 * 64,
      13_437_396,
      {
        'conv2d0_pre_relu_conv.weight': (64, 3, 7, 7),
        'conv2d1_pre_relu_conv.bias': (64,),
        'mixed3a_1x1_pre_relu_conv.weight': (64, 192, 1, 1),
        'mixed4a_3x3_pre_relu_conv.weight': (204, 96, 3, 3),
        'mixed4b_3x3_bottleneck_pre_relu_conv.weight': (112, 508, 1, 1),
        'mixed5a_5x5_bottleneck_pre_relu_conv.weight': (48, 832, 1, 1),
        'mixed5b_pool_reduce_pre_relu_conv.bias': (128,),
        'head0_bottleneck_pre_relu_conv.weight': (128, 508, 1, 1),
        'nn1_pre_relu_matmul.weight': (1024, 2048),
        'softmax2_pre_activation_matmul.weight': (1000, 1024),
      },
    ),
    (
      'alexnet_torchvision',
      2 * 8,
      61_100_840,
      {
        'features.0.weight': (64, 3, 11, 11),
        'features.10.bias': (256,),
        'classifier.1.weight': (4096, 9216),
        'classifier.6.weight': (1000, 4096),
      },
    ),
    (
      'vgg16',
      2 * 16,
      138_357_544,
      {
        'features.0.weight': (64, 3, 3, 3),
        'features.28.weight': (512, 512, 3, 3),
        'classifier.0.weight': (4096, 25088),
        'classifier.6.bias': (1000,),
      },
    ),
    (
      'paper',
      2 * 64,
      13_378_280,
      {
        'conv1/7x7_s2/0': (64, 3, 7, 7),
        'inception_4e/pool_proj/1': (128,),
        'loss1/fc/0': (1024, 2048),
        'loss2/classifier/0': (1000, 1024),
        'loss3/classifier/1': (1000,),
      },
    ),
  ],
)
def test_names_and_sizes_there(variant, count, parameters, some):
  entries = entries_of(variant, num_classes=1000)
  shapes = {entry.name: entry.shape for entry in entries}
  assert len(shapes) == len(entries)
  assert count is None or len(entries) == count
  statistics = ('running_mean', 'running_var')
  assert parameters == sum(
    int(np.prod(shape))
    for name, shape in shapes.items()
    if not name.endswith(statistics)
  )
  for name, shape in some.items():
    assert shapes[name] == shape, name


@pytest.mark.parametrize('variant', names.SCHEMES)
def test_every_module_has_a_name_and_every_name_a_module(variant):
  scheme = names.SCHEMES[variant]
  modules = {entry.module for entry in entries_of(variant)}
  assert modules == scheme.modules.keys()
  assert len(set(scheme.modules.values())) == len(modules)
  assert variant in variants.ARCHITECTURES


def test_layouts_by_hand():
  rng = np.random.default_rng(0)
  w = rng.normal(size=(5, 3, 2, 4))  # [C_out, C_in, kh, kw]
  ours = names.CONV.to_ours(w)
  assert ours.shape == (2, 4, 3, 5)
  assert ours[1, 3, 2, 4] == w[4, 2, 1, 3]
  assert names.CONV_BGR.to_ours(w)[1, 3, 0, 4] == w[4, 2, 1, 3]
  # A dense layer on a map gives the same whichever axis of the map is last.
  maps = rng.normal(size=(6, 2, 2))  # [C, H, W]
  dense = rng.normal(size=(7, 24))
  ours = names.flattened(6).to_ours(dense)
  np.testing.assert_allclose(
    maps.transpose(1, 2, 0).reshape(-1) @ ours, dense @ maps.reshape(-1)
  )
  for layout, array in (
    (names.CONV, w),
    (names.CONV_BGR, w),
    (names.DENSE, dense),
    (names.flattened(6), dense),
  ):
    back = layout.to_theirs(layout.to_ours(array))
    np.testing.assert_array_equal(back, array)


def test_a_dense_layer_after_dropout_sees_a_flattened_map():
  """In torchvision's AlexNet dropout lies between the map and the layer."""
  entries = {e.name: e for e in entries_of('alexnet_torchvision')}
  w = np.arange(2 * 9216).reshape(2, 256, 6, 6)
  ours = entries['classifier.1.weight'].layout.to_ours(w.reshape(2, 9216))
  np.testing.assert_array_equal(ours[256 * 7 + 3], w[:, 3, 1, 1])


# ---- A whole file, there and back.


@pytest.mark.parametrize(
  ('variant', 'ending', 'aux'),
  [('torchvision', '.safetensors', True), ('paper', '.npz', False)],
)
def test_round_trip_is_bit_for_bit(variant, ending, aux, tmp_path, capfd):
  heads = 'on' if aux else 'off'
  arrays = random_arrays(entries_of(variant, aux_heads=heads))
  array_files.write(tmp_path / f'a{ending}', arrays)
  assert (
    import_weights(
      f'{tmp_path}/a{ending}',
      f'{tmp_path}/run',
      variant,
      f'--config.model.aux_heads={heads if aux else "auto"}',
    )
    == 0
  )
  config = json.loads((tmp_path / 'run/config.json').read_text())
  assert config['model']['aux_heads'] == heads
  assert config['data']['channels'] == 3
  means = {'torchvision': [0.5] * 3, 'paper': [123 / 255, 117 / 255, 104 / 255]}
  assert config['data']['mean'] == means[variant]
  out = capfd.readouterr().out
  told = 'taken    18 arrays (aux1.' if aux else 'set      config.model.aux_he'
  assert told in out
  assert 'config.data.mean=' in out
  back = tmp_path / f'b{ending}'
  target = (f'--workdir={tmp_path}/run', f'--weights={back}')
  assert run('export_weights', *target) == 0
  told = ', with auxiliary heads\n' if aux else ', without auxiliary heads\n'
  assert told in capfd.readouterr().out
  stored = array_files.read(back)
  counters = {n for n in stored if n.endswith('num_batches_tracked')}
  assert len(counters) == (59 if variant == 'torchvision' else 0)
  assert stored.keys() - counters == arrays.keys()
  for name, array in arrays.items():
    assert stored[name].read().tobytes() == array.tobytes(), name
  capfd.readouterr()
  assert 'never overwritten' in refused(capfd, run('export_weights', *target))
  assert files_under(tmp_path / 'run') == [
    'checkpoints',
    'checkpoints/step_000000000.npz',
    'config.json',
  ]


def test_first_convolution_takes_rgb(tmp_path):
  arrays = random_arrays(entries_of('paper', aux_heads='off'))
  np.savez(tmp_path / 'a.npz', **arrays)
  assert import_weights(f'{tmp_path}/a.npz', f'{tmp_path}/run', 'paper') == 0
  _, saved = pretrained.read_run(tmp_path / 'run')
  w = arrays['conv1/7x7_s2/0']
  red = saved.params['conv_1/conv_7x7']['w'][:, :, 0]
  np.testing.assert_array_equal(red, w[:, 2].transpose(1, 2, 0))


def shapes_alone(entries, dtype='float32'):
  """The arrays of a file, which fail when their numbers are read."""
  return {
    e.name: array_files.Stored(e.shape, dtype, lambda: 1 / 0) for e in entries
  }


def plan_of(stored, variant, **changes):
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.update({'variant': variant, **changes})
  scheme = names.SCHEMES[variant]
  return plans.make_plan(config_lib.resolve(config), scheme, stored)


@pytest.mark.parametrize('value', ['auto', 'off', 'on'])
def test_heads_that_are_not_asked_for_are_left_out_and_told(value):
  """Those of torchvision's published weights are noise: they train noise."""
  entries = entries_of('torchvision', aux_heads='on')
  plan = plan_of(shapes_alone(entries), 'torchvision', aux_heads=value)
  (line,) = (line for line in plan.lines if 'aux1.' in line)
  assert 'those of the published torchvision.models.googlenet are not' in line
  is_on = value == 'on'
  taken = {name for name in plan.stored if name.startswith('aux')}
  assert len(taken) == (18 if is_on else 0)
  assert plan.config.model.aux_heads == ('on' if is_on else 'off')
  if is_on:
    assert line.startswith('taken    18 arrays (aux1.')
  else:
    assert line.startswith('left out 18 arrays (aux1.')
    assert '--config.model.aux_heads=on takes them' in line


def test_hints_name_the_fields(tmp_path, monkeypatch, capfd):
  stored = shapes_alone(entries_of('alexnet_torchvision'))
  monkeypatch.setattr(array_files, 'read', lambda path: stored)
  target = ('a.pth', f'{tmp_path}/run', 'alexnet_torchvision')
  line = refused(capfd, import_weights(*target, size=96))
  assert 'classifier.1.weight (4096, 9216) instead of (4096, 1024)' in line
  assert 'its shapes fit --config.data.image_size=224' in line
  assert files_under(tmp_path) == []
  flags = '--config.data.channels=1', '--config.data.std=1'
  line = refused(capfd, import_weights(*target, *flags, size=224))
  assert 'features.0.weight (64, 3, 11, 11) instead of (64, 1, 11, 11)' in line
  assert '(its first convolution has --config.data.channels=3); noth' in line

  entries = entries_of('torchvision', aux_heads='on')
  scheme = names.SCHEMES['torchvision']
  stored = shapes_alone(e for e in entries if not e.name.startswith('aux'))
  plan = plan_of(stored, 'torchvision', aux_heads='on')
  problems = convert.find_problems(plan.stored, entries)
  hint = import_weights_mode._hint(plan, scheme, problems)
  assert hint == ' (it has no auxiliary heads: --config.model.aux_heads=off)'


def test_small_images_need_no_heads(tmp_path, capfd):
  """Inception v3 can be imported at any size; its head wants 299."""
  target = ('a.pth', f'{tmp_path}/run', 'inception_v3')
  flags = '--config.model.aux_heads=on', '--preset=torchvision'
  code = import_weights(*target, *flags, size=224)
  line = refused(capfd, code)
  assert "works is 299, or 75 with config.model.aux_heads='off'" in line


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_m.'])
def test_names_of_wrapped_networks_are_taken(prefix):
  """DataParallel, torch.compile and averaged models put words before them."""
  plain = shapes_alone(entries_of('torchvision', aux_heads='off'), 'float64')
  stored = {f'{prefix}{name}': array for name, array in plain.items()}
  stored['n_averaged'] = array_files.Stored((), 'int64', lambda: 3)
  plan = plan_of(stored, 'torchvision')
  assert plan.stored == plain
  lines = '\n'.join(plan.lines)
  assert f"renamed  arrays: without '{prefix}' before their names" in lines
  assert 'left out 1 arrays (n_averaged)' in lines
  assert 'rounded  287 arrays (conv1.' in lines


def test_names_with_and_without_a_prefix_are_not_guessed():
  arrays = dict.fromkeys(('a.fc.weight', 'a.x', 'x'))
  assert convert.without_prefix(arrays, 'fc.weight') == (arrays, '')
  del arrays['x']
  expected = {'fc.weight': None, 'x': None}
  assert convert.without_prefix(arrays, 'fc.weight') == (expected, 'a.')


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64'])
def test_other_precisions_are_converted(dtype, tmp_path):
  (entry,) = (e for e in entries_of('torchvision') if e.name == 'fc.bias')
  half = np.arange(10).astype(jnp.dtype(dtype))
  array_files.write(tmp_path / 'a.safetensors', {'fc.bias': half})
  stored = array_files.read(tmp_path / 'a.safetensors')
  trees = convert.to_ours('', stored, [entry])
  bias = trees['params']['logits']['b']
  assert bias.dtype == np.float32
  np.testing.assert_array_equal(bias, np.arange(10))


# ---- What is wrong with a file is told by name.


def damaged_arrays():
  arrays = random_arrays(entries_of('torchvision', aux_heads='off'))
  del arrays['conv2.bn.weight'], arrays['inception4c.branch2.1.conv.weight']
  arrays['../../etc/passwd'] = np.zeros(3, np.float32)
  arrays['\x1b[31mred\n'] = np.zeros(3, np.float32)
  arrays['conv1.conv.weight'] = np.zeros((64, 3, 5, 5), np.float32)
  arrays['fc.bias'] = np.zeros(1000, np.float32)
  arrays['fc.weight'] = arrays['fc.weight'].astype(np.int32)
  return arrays


@pytest.mark.parametrize('compare', ['.safetensors', '.npz'])
def test_all_problems_are_listed_and_nothing_is_written(
  compare, tmp_path, capfd, monkeypatch
):
  if compare == '.npz':  # the same file by the other reader
    monkeypatch.setitem(
      names.SCHEMES,
      'torchvision',
      names.SCHEMES['torchvision']._replace(suffixes=('.npz',)),
    )
  path = tmp_path / f'a{compare}'
  array_files.write(path, damaged_arrays())
  line = refused(
    capfd,
    import_weights(
      path, f'{tmp_path}/run', 'torchvision', '--config.model.num_classes=10'
    ),
  )
  for text in (
    'missing (2): conv2.bn.weight, inception4c.branch2.1.conv.weight',
    'unknown (2): ',
    '../../etc/passwd',
    '\\x1b[31mred\\n',
    'conv1.conv.weight (64, 3, 5, 5) instead of (64, 3, 7, 7)',
    'fc.bias (1000,) instead of (10,)',
    'fc.weight int32 instead of float32',
    '--config.model.num_classes=1000',
  ):
    assert text in line
  assert files_under(tmp_path) == [path.name]


def test_very_many_problems_are_counted(tmp_path, capfd):
  arrays = {f'x{i}': np.zeros(1, np.float32) for i in range(500)}
  array_files.write(tmp_path / 'a.safetensors', arrays)
  line = refused(
    capfd, import_weights(f'{tmp_path}/a.safetensors', f'{tmp_path}/run')
  )
  assert 'unknown (500): x0, x1, ' in line
  assert 'and 440 more' in line


def test_numbers_that_cannot_be(tmp_path, capfd):
  arrays = random_arrays(entries_of('torchvision', aux_heads='off'))
  arrays['conv1.conv.weight'][0, 0, 0, 0] = np.nan
  arrays['conv3.bn.running_var'][5] = -1
  arrays['fc.bias'] = np.full(10, 1e300)  # infinite in float32
  array_files.write(tmp_path / 'a.safetensors', arrays)
  line = refused(
    capfd, import_weights(f'{tmp_path}/a.safetensors', f'{tmp_path}/run')
  )
  assert (
    'not usable (3): conv1.conv.weight, fc.bias, conv3.bn.running_var' in line
  )
  assert files_under(tmp_path) == ['a.safetensors']


# ---- Hostile files.


def header(text, data=b''):
  text = text if isinstance(text, bytes) else json.dumps(text).encode()
  return struct.pack('<Q', len(text)) + text + data


def tensor(shape, start, stop, dtype='F32'):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': [start, stop]}


HOSTILE = {
  'empty': b'',
  'cut in the length': b'\x10\0\0',
  'header longer than the file': struct.pack('<Q', 2**62) + b'{}',
  'header cut': struct.pack('<Q', 400) + b'{"a": ',
  'no JSON': header(b'{"a": '),
  'no UTF-8': header(b'\xff\xfe{}'),
  'no object': header([1]),
  'deep': header(b'[' * 100_000),
  'a name twice': header(b'{"a": 1, "a": 2}'),
  'no entry': header({'a': 3}),
  'no shape': header({'a': {'dtype': 'F32'}}),
  'huge shape': header({'a': tensor([2**40, 2**40], 0, 4)}, b'abcd'),
  'huge place': header({'a': tensor([2**60], 0, 2**62)}, b'abcd'),
  'negative shape': header({'a': tensor([-1, -1], 0, 4)}, b'abcd'),
  'negative place': header({'a': tensor([1], -4, 0)}, b'abcd'),
  'shape of text': header({'a': tensor(['1'], 0, 4)}, b'abcd'),
  'unknown dtype': header({'a': tensor([1], 0, 4, 'F33')}, b'abcd'),
  'dtype that is none': header({'a': tensor([1], 0, 4, [])}, b'abcd'),
  'overlap': header({'a': tensor([1], 0, 4), 'b': tensor([1], 0, 4)}, b'abcd'),
  'gap': header({'a': tensor([1], 4, 8)}, b'abcdabcd'),
  'more behind': header({'a': tensor([1], 0, 4)}, b'abcdefgh'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_safetensors(case, tmp_path):
  path = tmp_path / 'a.safetensors'
  path.write_bytes(HOSTILE[case])
  with pytest.raises(UserError, match='is damaged') as error:
    array_files.read(path)
  assert len(str(error.value)) < 500


def npz(path, name, data, **options):
  with zipfile.ZipFile(path, 'w', **options) as archive:
    archive.writestr(name, data)


def npy_header(shape, descr="'<f4'"):
  text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"
  return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()


@pytest.mark.parametrize(
  'data',
  [
    b'',
    b'\x93NUMPY\x09\x00abc',
    npy_header('(1099511627776, 4096)') + b'abcd',
    npy_header('(-1,)'),
    npy_header("('x',)"),
    npy_header('(1,)', "'|O'") + b'cos\nsystem\n.',
    b'\x93NUMPY\x01\x00' + struct.pack('<H', 9) + b'__import__',
  ],
)
def test_hostile_npz(data, tmp_path):
  npz(tmp_path / 'a.npz', 'conv1/7x7_s2/0.npy', data)
  with pytest.raises(UserError, match='is damaged'):
    array_files.read(tmp_path / 'a.npz')


def test_damage_in_numbers_of_a_zip_is_noticed(tmp_path, capfd):
  arrays = random_arrays(entries_of('paper', aux_heads='off'))
  path = tmp_path / 'a.npz'
  np.savez(path, **arrays)
  data = bytearray(path.read_bytes())
  place = data.index(arrays['conv2/3x3/0'].tobytes())
  data[place + 100] ^= 1
  path.write_bytes(data)
  line = refused(capfd, import_weights(path, f'{tmp_path}/run', 'paper'))
  assert 'CRC' in line
  assert files_under(tmp_path) == ['a.npz']


def test_names_with_paths_write_nowhere(tmp_path, capfd):
  npz(tmp_path / 'a.npz', '../../evil.npy', npy_header('(1,)') + b'abcd')
  line = refused(
    capfd, import_weights(f'{tmp_path}/a.npz', f'{tmp_path}/run', 'paper')
  )
  assert 'unknown (1): ../../evil' in line
  assert files_under(tmp_path) == ['a.npz']


# ---- What cannot be.


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'variant': 'plain'}, "config.model.variant='plain'"),
    (
      {'variant': 'paper', 'normalization': 'batch'},
      "config.model.normalization='batch'",
    ),
    (
      {'variant': 'torchvision', 'activation': 'gelu'},
      "config.model.activation='gelu'",
    ),
    (
      {'variant': 'torchvision', 'width_multiplier': 0.5},
      'config.model.width_multiplier=0.5',
    ),
  ],
)
def test_networks_that_no_one_else_has(changes, words):
  with pytest.raises(UserError) as error:
    names.scheme_of(model_config(**changes))
  assert words in str(error.value)


def test_export_of_heads_that_caffe_pools_otherwise(tmp_path, capfd):
  """Maps of 6x6 at 96 pixels: 1x1 here, 2x2 in Caffe, which pads behind."""
  network = make_network(model_config(variant='paper'))
  shapes = abstract_init(network, (96, 96, 3))
  config = parse(
    launch.FLAGS,
    [
      'launch.py',
      f'--config={ROOT}/configs/fmnist96.py',
      '--config.model.variant=paper',
      '--config.model.num_classes=10',
    ],
  ).config
  trees = [
    {
      m: {k: np.zeros(v.shape, v.dtype) for k, v in leaves.items()}
      for m, leaves in tree.items()
    }
    for tree in shapes
  ]
  pretrained.write_run(tmp_path / 'run', config, *trees)
  line = refused(
    capfd,
    run(
      'export_weights',
      f'--workdir={tmp_path}/run',
      f'--weights={tmp_path}/a.npz',
    ),
  )
  assert '6x6 to 1x1, those of Caffe to 2x2' in line
  assert not pathlib.Path(tmp_path / 'a.npz').exists()


@pytest.mark.parametrize('ending', ['.safetensors', '.npz'])
def test_arrays_of_any_layout_come_back(ending, tmp_path):
  arrays = {
    'transposed': np.arange(6, dtype=np.float32).reshape(2, 3).T,
    'strided': np.arange(6)[::2],
    'scalar': np.asarray(7, np.int64),
    'empty': np.zeros((0, 3), np.float32),
    'flags': np.array([True, False]),
  }
  array_files.write(tmp_path / f'a{ending}', arrays)
  stored = array_files.read(tmp_path / f'a{ending}')
  assert stored.keys() == arrays.keys()
  for name, array in arrays.items():
    assert (stored[name].shape, stored[name].dtype) == (
      array.shape,
      array.dtype.name,
    )
    np.testing.assert_array_equal(stored[name].read(), array, strict=True)
  assert files_under(tmp_path) == [f'a{ending}']


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path, monkeypatch):
  with pytest.raises(OSError, match='No such file'):
    array_files.write(tmp_path / 'gone/a.safetensors', {'a': np.zeros(1)})

  def full(_):
    assert len(files_under(tmp_path)) == 1
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    array_files.write(tmp_path / 'a.safetensors', {'a': np.zeros(1)})
  assert files_under(tmp_path) == []


# ---- Fine-tuning.


@pytest.mark.slow
def test_an_imported_network_is_fine_tuned_on_a_folder(tmp_path, monkeypatch):
  """By its own config: its network and preparation, the classes of the data."""
  monkeypatch.chdir(tmp_path)
  entries = entries_of('torchvision', num_classes=1000)
  array_files.write(pathlib.Path('net.safetensors'), random_arrays(entries))
  flags = ('torchvision', '--preset=torchvision')
  assert import_weights('net.safetensors', 'imported', *flags) == 0
  for split, count in (('train', 4), ('val', 2)):
    for name in ('ant', 'bee'):
      folder = tmp_path / 'photos' / split / name
      folder.mkdir(parents=True)
      for i in range(count):
        Image.new('RGB', (90, 70 + i)).save(folder / f'{i}.jpg')
  given = (
    *('--config=imported', '--config.finetune.from_workdir=imported'),
    *('--config.data.data_dir=photos', '--config.train.batch_size=4'),
    *('--config.data.train_split=train', '--config.data.eval_split=val'),
  )

  def built(*more):
    """Returns what a run is made of, before it compiles, and what it tells."""
    arguments = completed(parse(launch.FLAGS, ['launch.py', *given, *more]))
    run = setup.build(arguments.config)
    return run, messages.describe(run, arguments.workdir)

  run, lines = built('--config.model.num_classes=0')
  data = run.config.data
  assert (data.resize, data.image_size) == (73, 64)  # as 256 and 224
  assert tuple(data.mean) == tuple(data.std) == (0.5, 0.5, 0.5)
  assert run.config.model.num_classes == 2
  assert 'new      logits: newly initialized' in lines
  assert 'classes  ant 4 + 2, bee 4 + 2' in lines
  assert not any(line.startswith('hint     photos') for line in lines)
  _, imported = pretrained.read_run(tmp_path / 'imported')
  for module in imported.params.keys() - {'logits'}:
    for name, array in imported.params[module].items():
      np.testing.assert_array_equal(run.state.params[module][name], array)

  run, lines = built('--config.data.eval_split=train')
  assert run.config.model.num_classes == 1000
  assert any(
    line.startswith('hint     photos has 2 classes, the network 1000')
    for line in lines
  )
  assert '         evaluated on the images that it is trained on' in lines
