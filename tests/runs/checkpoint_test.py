"""Checkpoints are whole or not there; parts of one serve another run."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax import types
from drp_jax.runs import checkpoint


def _state(seed=0):
  """One array of each kind that states hold, in a state's own class."""
  rng = np.random.default_rng(seed)
  kernel = jnp.asarray(rng.normal(size=(3, 4)).astype(np.float32))
  return types.PretrainState(
    step=jnp.int32(seed),
    params={'dae': {'kernel': kernel}, 'critic': {'bias': kernel[0]}},
    collections={
      'constants': {'flow_scale': jnp.float32(0.1 + seed)},
      'flags': jnp.asarray(rng.random(5) < 0.5),
      'bytes': jnp.asarray(rng.integers(0, 256, 5, np.uint8)),
      'halves': jnp.asarray(rng.normal(size=2), jnp.bfloat16),
    },
    opt_state=(jnp.asarray([3e38, -0.0, 1e-42]), ()),
  )


def _template():
  return jax.tree.map(jnp.zeros_like, _state())


def _bits(x):
  x = np.asarray(x)
  return x.shape, x.dtype, x.tobytes()


def _assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  assert jax.tree.map(_bits, one) == jax.tree.map(_bits, other)


def _steps(folder):
  """Names in the folder of checkpoints that are plain numbers."""
  names = [path.name for path in (folder / 'checkpoints').iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


def test_a_state_comes_back_to_the_bit(tmp_path):
  meta = {
    'iterator': {'next_index': 5},
    'files': [[0, 3], [3, 9]],
    'none': None,
  }
  saved = checkpoint.Checkpoints(tmp_path)
  assert saved.latest_step() is None
  saved.save(12, _state(), meta)
  saved.close()
  again = checkpoint.Checkpoints(str(tmp_path))
  assert again.latest_step() == 12
  state, read = again.restore(_template())
  _assert_same(state, _state())
  assert read == meta


def test_shapes_are_template_enough(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, _state(), {})
  shapes = jax.eval_shape(_state)
  state, meta = saved.restore(shapes)
  _assert_same(state, _state())
  assert meta == {}


def test_what_was_saved_does_not_follow_later_changes(tmp_path):
  """The training step donates its state: its buffers are written over."""
  saved = checkpoint.Checkpoints(tmp_path)
  state = _state()
  saved.save(1, state, {})
  jax.tree.map(lambda x: x.delete(), state)
  _assert_same(saved.restore(_template())[0], _state())


def test_the_newest_two_are_kept_and_the_newest_is_read(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  for step in (3, 7, 20, 100):  # by number: as a text, 7 would come last
    saved.save(step, _state(step), {'at': step})
  assert saved.latest_step() == 100
  state, meta = saved.restore(_template())
  _assert_same(state, _state(100))
  assert meta == {'at': 100}
  saved.close()
  assert _steps(tmp_path) == [20, 100]


class _Killed(BaseException):
  pass


def test_a_kill_while_saving_leaves_the_one_before(tmp_path, monkeypatch):
  """The last thing a save does is to give its folder its name."""
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, _state(1), {'at': 1})
  rename = os.rename
  named = []

  def dying(source, target, *args, **kwargs):
    if str(target).endswith('/2'):
      named.append(str(source))
      raise _Killed
    return rename(source, target, *args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr('os.rename', dying)
    patch.setattr('os.replace', dying)
    with pytest.raises(_Killed):
      saved.save(2, _state(2), {'at': 2})
  assert len(named) == 1

  again = checkpoint.Checkpoints(tmp_path)
  assert again.latest_step() == 1
  state, meta = again.restore(_template())
  _assert_same(state, _state(1))
  assert meta == {'at': 1}
  part = {'params': _template().params}
  _assert_same(
    checkpoint.load_part(tmp_path, part), {'params': _state(1).params}
  )
  again.save(2, _state(3), {'at': 3})
  _assert_same(again.restore(_template())[0], _state(3))


def test_a_part_of_the_newest_checkpoint(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(9, _state(9), {})
  saved.save(10, _state(10), {})
  saved.close()
  part = {
    'params': {'dae': _template().params['dae']},
    'collections': {'constants': {'flow_scale': jnp.float32(0)}},
  }
  loaded = checkpoint.load_part(tmp_path, part)
  expected = _state(10)
  _assert_same(
    loaded,
    {
      'params': {'dae': expected.params['dae']},
      'collections': {'constants': expected.collections['constants']},
    },
  )


def test_up_to_three_parts_that_do_not_fit_are_named(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  saved.save(1, _state(), {})
  saved.close()
  wrong = {'params': {'dae': {'kernel': jnp.zeros((4, 3))}}}
  with pytest.raises(ValueError) as error:
    checkpoint.load_part(tmp_path, wrong)
  assert str(error.value) == (
    f'The checkpoint of config.init_from={str(tmp_path)!r} does not fit this '
    'model (another preset, or another config.agent?): params/dae/kernel: '
    '(3, 4) in the file, (4, 3) wanted.'
  )
  many = {'params': {name: jnp.zeros(2) for name in 'abcde'}}
  with pytest.raises(ValueError, match='params/c: missing .* and 2 more'):
    checkpoint.load_part(tmp_path, many)


@pytest.mark.parametrize('folder', ['nowhere', '.'])
def test_no_checkpoint_to_load_a_part_of(tmp_path, folder):
  with pytest.raises(ValueError, match='config.init_from=.*no checkpoint'):
    checkpoint.load_part(tmp_path / folder, {'params': {'a': jnp.zeros(2)}})


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A workdir with one checkpoint, an `extra` in it."""
  folder = tmp_path_factory.mktemp('written')
  saved = checkpoint.Checkpoints(folder)
  saved.save(7, _state(), {'at': 7}, {'carry': jnp.arange(3.0)})
  saved.close()
  return folder


def test_what_is_beside_the_state(written):
  saved = checkpoint.Checkpoints(written)
  extra = saved.restore_extra({'carry': jnp.zeros(3)})
  np.testing.assert_array_equal(extra['carry'], [0.0, 1.0, 2.0])
  _assert_same(saved.restore(_template())[0], _state())


def _other(state):
  return {
    'another size': state.replace(
      params={**state.params, 'critic': {'bias': jnp.zeros(5)}}
    ),
    'another system': state.replace(
      params={'dae': state.params['dae'], 'encoder': {'bias': jnp.zeros(4)}}
    ),
    'less': state.replace(params={'dae': state.params['dae']}),
  }


@pytest.mark.parametrize(
  ('what', 'message'),
  [
    ('another size', r'params/critic/bias: \(4,\) in the file, \(5,\) wanted'),
    ('another system', r'params/encoder/bias: missing in the file'),
    ('less', r'params/critic/bias: \(4,\) in the file alone'),
  ],
)
def test_a_checkpoint_of_another_model(written, what, message):
  saved = checkpoint.Checkpoints(written)
  with pytest.raises(
    ValueError, match=f'Checkpoint 7 in .* does not fit this model.*{message}'
  ):
    saved.restore(_other(_template())[what])


def test_what_is_not_finite_is_not_taken(tmp_path):
  saved = checkpoint.Checkpoints(tmp_path)
  state = _state()
  bad = state.replace(params={**state.params, 'x': jnp.asarray([0.0, np.nan])})
  saved.save(1, bad, {})
  with pytest.raises(ValueError, match=r'Checkpoint 1 .* finite: params/x\.'):
    saved.restore(jax.tree.map(jnp.zeros_like, bad))
  part = {'params': {'x': jnp.zeros(2)}}
  with pytest.raises(
    ValueError, match=r'config\.init_from=.* finite: params/x'
  ):
    checkpoint.load_part(tmp_path, part)
  with pytest.raises(ValueError, match='bfloat16|finite'):
    halves = {'x': jnp.asarray([np.inf], jnp.bfloat16)}
    saved.save(2, halves, {})
    saved.restore(halves)


def test_a_bit_that_flips_anywhere_is_found(written, tmp_path):
  """Or it is in what nobody reads: never are other numbers taken."""
  rng = np.random.default_rng(0)
  found = 0
  for number in range(12):
    copy = tmp_path / str(number)
    shutil.copytree(written, copy)
    files = [p for p in sorted(copy.rglob('*')) if p.is_file()]
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    if not content:
      continue
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    saved = checkpoint.Checkpoints(copy)
    try:
      state, meta = saved.restore(_template())
    except ValueError as error:
      assert 'Checkpoint 7' in str(error)
      found += 1
    else:
      _assert_same(state, _state())
      assert meta == {'at': 7}
  assert found


def _meta(folder):
  return folder / 'checkpoints' / '7' / 'meta' / 'metadata'


def test_a_bit_that_flips_in_the_json_is_found(written, tmp_path):
  """Every byte of it: numbers, names, and what tells it from an old one."""
  shutil.copytree(written, tmp_path / 'copy')
  path = _meta(tmp_path / 'copy')
  whole = path.read_bytes()
  content = json.loads(whole)
  intact = checkpoint.digest(tmp_path / 'copy')
  for index in range(len(whole)):
    flipped = bytearray(whole)
    flipped[index] ^= 1 << index % 8
    path.write_bytes(flipped)
    try:
      same = json.loads(bytes(flipped)) == content
    except ValueError:
      same = False
    if same:  # as 1e5 and 1E5
      assert checkpoint.digest(tmp_path / 'copy') == intact
      continue
    with pytest.raises(ValueError, match='checkpoint .* is damaged: '):
      checkpoint.digest(tmp_path / 'copy')
  saved = checkpoint.Checkpoints(tmp_path / 'copy')
  for name in content:  # renamed, as a flipped bit may
    other = {k.replace(name, name + 'x'): v for k, v in content.items()}
    path.write_text(json.dumps(other))
    with pytest.raises(
      ValueError, match='Checkpoint 7 .* is damaged: its JSON'
    ):
      saved.restore(_template())
  path.write_text(json.dumps({**content, 'at': 8}))
  with pytest.raises(ValueError, match='damaged: its JSON is not what was'):
    saved.restore(_template())
  with pytest.raises(ValueError, match='damaged: its JSON is not what was'):
    checkpoint.load_part(tmp_path / 'copy', {'params': _template().params})


def test_a_checkpoint_from_before_its_json_had_a_checksum(written, tmp_path):
  shutil.copytree(written, tmp_path / 'copy')
  path = _meta(tmp_path / 'copy')
  content = json.loads(path.read_text())
  old = {key: content[key] for key in ('at', 'crc32')}
  assert old.keys() < content.keys()
  path.write_text(json.dumps(old))
  state, meta = checkpoint.Checkpoints(tmp_path / 'copy').restore(_template())
  _assert_same(state, _state())
  assert meta == {'at': 7}
  assert checkpoint.digest(tmp_path / 'copy') == checkpoint.digest(written)


def test_files_of_others_between_the_checkpoints(written, tmp_path):
  shutil.copytree(written, tmp_path / 'copy')
  folder = tmp_path / 'copy' / 'checkpoints'
  for name in ('.DS_Store', 'notes.txt', '8 (copy)', '9.txt', 'old'):
    (folder / name).touch()
  (folder / 'backup').mkdir()
  assert checkpoint.latest_step(tmp_path / 'copy') == 7
  saved = checkpoint.Checkpoints(tmp_path / 'copy')
  assert saved.latest_step() == 7
  _assert_same(saved.restore(_template())[0], _state())
  saved.save(8, _state(8), {})
  saved.save(9, _state(9), {})
  assert (folder / 'notes.txt').exists() and (folder / 'backup').exists()


def test_other_numbers_than_were_written_are_found(written, monkeypatch):
  """Also where the format itself would not notice."""
  monkeypatch.setattr(checkpoint, '_crc32', lambda _: 1)
  with pytest.raises(ValueError, match='is damaged: not what was written'):
    checkpoint.Checkpoints(written).restore(_template())


_FULL = """
import pathlib, resource, signal, sys
sys.path.insert(0, sys.argv[2])
import checkpoint_test as test
from drp_jax.runs import checkpoint

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
saved = checkpoint.Checkpoints(sys.argv[1])
saved.save(1, test._state(1), {'at': 1})
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
try:
  saved.save(2, test._state(2), {'at': 2})
except RuntimeError as error:
  print(error)
try:
  other = checkpoint.Checkpoints(sys.argv[1] + '/other')
  other.save(1, test._state(1), {'at': 1})
except RuntimeError as error:
  print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, before)
again = checkpoint.Checkpoints(sys.argv[1])
assert again.latest_step() == 1
test._assert_same(again.restore(test._template())[0], test._state(1))
again.save(2, test._state(2), {'at': 2})
test._assert_same(again.restore(test._template())[0], test._state(2))
"""


def test_a_disk_that_is_full(tmp_path):
  """Here a limit of 100 bytes a file: the checkpoint before stays."""
  done = subprocess.run(
    [sys.executable, '-c', _FULL, tmp_path, pathlib.Path(__file__).parent],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert 'Checkpoint 2 cannot be written to' in done.stdout
  assert 'Checkpoint 1 is whole: once there is space' in done.stdout
  assert 'There is none before it: ' in done.stdout
