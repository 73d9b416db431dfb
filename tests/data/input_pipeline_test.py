"""Batches from shards: order, shares of hosts, and going on mid-pass."""

import itertools
import json

import numpy as np
import pytest

from drp_jax.data import input_pipeline, shards

_K = 5
_N = 11  # training clips


@pytest.fixture(autouse=True)
def _read_little_ahead(monkeypatch):
  """Clips; a run's buffer would be filled anew for every iterator here."""
  monkeypatch.setattr(input_pipeline, '_PREFETCH', 8)


@pytest.fixture(scope='module')
def train(small_shards):
  """All training clips, in the order of the shards."""
  source = shards.open_split(small_shards, 'train', None)
  return [source[i] for i in range(len(source))]


@pytest.fixture(scope='module')
def numbers(train):
  """Batches -> number of each clip, its place in the shards: [batches][b]."""
  place = {_level(clip['image']): i for i, clip in enumerate(train)}
  assert len(place) == len(train) == _N

  def read(batches):
    return [[place[_level(image)] for image in b['image']] for b in batches]

  return read


@pytest.fixture
def stream(small_shards, numbers):
  """(batches, settings) -> numbers of the first batches' clips."""

  def read(count, **settings):
    return numbers(itertools.islice(_iterator(small_shards, **settings), count))

  return read


def _iterator(folder, **changes):
  settings = dict(
    shards_dir=folder,
    split='train',
    clip_length=3,
    batch_size=4,
    num_keypoints=_K,
    seed=0,
  )
  return input_pipeline.make_iterator(**{**settings, **changes})


def _level(image):
  return int(image[0, 0, 0, 0])


def _passes(batches, length):
  """The stream without batch borders, cut into whole passes over the data."""
  flat = list(itertools.chain(*batches))
  count = len(flat) // length
  return [flat[i * length : (i + 1) * length] for i in range(count)]


def test_without_keypoints_the_same_clips_come_as_images_alone(small_shards):
  with_motion = next(_iterator(small_shards))
  alone = next(_iterator(small_shards, num_keypoints=None))
  assert alone.keys() == {'image'}
  np.testing.assert_array_equal(alone['image'], with_motion['image'])


def test_a_batch_holds_clips_with_their_own_motion(
  small_shards, train, numbers
):
  batch = next(_iterator(small_shards))
  for index, number in enumerate(numbers([batch])[0]):
    clip = train[number]
    for name in ('image', 'flow'):
      np.testing.assert_array_equal(batch[name][index], clip[name])
    for name in ('points', 'visible'):  # the first K of Kmax
      np.testing.assert_array_equal(batch[name][index], clip[name][:, :_K])
  kinds = {name: (x.shape, x.dtype.name) for name, x in batch.items()}
  assert kinds == {
    'image': ((4, 3, 64, 64, 3), 'uint8'),
    'flow': ((4, 3, 64, 64, 2), 'float16'),
    'points': ((4, 3, _K, 2), 'float32'),
    'visible': ((4, 3, _K), 'bool'),
  }


@pytest.mark.parametrize('num_keypoints', [1, 32])
def test_as_many_keypoints_as_asked_for(
  small_shards, train, numbers, num_keypoints
):
  batch = next(_iterator(small_shards, num_keypoints=num_keypoints))
  expected = train[numbers([batch])[0][0]]['points'][:, :num_keypoints]
  np.testing.assert_array_equal(batch['points'][0], expected)


def test_each_pass_sees_each_clip_once_in_another_order(stream):
  """Four clips a batch of eleven: passes begin inside batches."""
  passes = _passes(stream(11), _N)
  assert len(passes) == 4
  for one in passes:
    assert sorted(one) == list(range(_N))
  assert len({tuple(one) for one in passes}) == 4


def test_the_order_is_a_function_of_the_seed_alone(stream):
  assert stream(6) == stream(6)
  assert stream(6, seed=1) != stream(6)
  # Not of where a batch ends.
  flat = list(itertools.chain(*stream(6)))
  assert flat == list(itertools.chain(*stream(3, batch_size=8)))


@pytest.mark.parametrize('num_hosts', [2, 3])
def test_hosts_read_the_parts_of_one_batch(stream, num_hosts):
  """Joined, they are what a single host reads, over more than one pass."""
  parts = [
    stream(5, batch_size=6, host=host, num_hosts=num_hosts)
    for host in range(num_hosts)
  ]
  joined = [sum(batch, []) for batch in zip(*parts, strict=True)]
  assert joined == stream(5, batch_size=6)
  assert {len(part) for part in parts[0]} == {6 // num_hosts}


@pytest.mark.parametrize('taken', [0, 1, 4])
def test_a_saved_position_goes_on_exactly_there(
  small_shards, numbers, stream, taken, monkeypatch
):
  """After 0, 4 and 16 of 11 clips: at the start, and inside two passes."""
  iterator = _iterator(small_shards)
  before = numbers(itertools.islice(iterator, taken))
  state = json.loads(json.dumps(iterator.get_state()))
  next(iterator)  # what is read later, or was read ahead, does not count

  monkeypatch.setattr(input_pipeline, '_NUM_THREADS', 1)  # nor do threads
  resumed = _iterator(small_shards)
  next(resumed)
  resumed.set_state(state)
  after = numbers(itertools.islice(resumed, 6))
  assert before + after == stream(taken + 6)


def test_a_host_goes_on_in_its_own_part(small_shards, numbers, stream):
  settings = dict(batch_size=6, host=1, num_hosts=2)
  iterator = _iterator(small_shards, **settings)
  next(iterator)
  resumed = _iterator(small_shards, **settings)
  resumed.set_state(iterator.get_state())
  rest = numbers(itertools.islice(resumed, 4))
  assert rest == stream(5, **settings)[1:]


def test_validation_clips_are_no_training_clips(small_shards, train):
  batch = next(_iterator(small_shards, split='validation', batch_size=5))
  levels = {_level(image) for image in batch['image']}
  assert len(levels) == 5  # all that there are
  assert not levels & {_level(clip['image']) for clip in train}


@pytest.mark.parametrize(
  ('batch_size', 'num_batches', 'sizes'),
  [(4, 9, [4, 4, 3]), (4, 2, [4, 4]), (20, 1, [11]), (11, 2, [11])],
)
def test_a_sample_holds_each_clip_once(
  small_shards, numbers, stream, batch_size, num_batches, sizes
):
  found = input_pipeline.sample(
    small_shards, 'train', 3, batch_size, num_batches, _K, seed=0
  )
  read = numbers(found)
  assert [len(batch) for batch in read] == sizes
  first = list(itertools.chain(*stream(3)))[: sum(sizes)]
  assert list(itertools.chain(*read)) == first  # and in the same order
  assert found[-1]['points'].shape == (sizes[-1], 3, _K, 2)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(num_keypoints=0), r'config.dae.num_keypoints=0 .*\[1, 32\]'),
    (dict(num_keypoints=33), r'config.dae.num_keypoints=33 .*\[1, 32\]'),
    (dict(batch_size=0), 'config.data.batch_size=0 must be a positive'),
    (dict(batch_size=-2), 'config.data.batch_size=-2 must be a positive'),
    (dict(num_hosts=3), 'batch_size=4 .* the number of hosts, 3'),
    (dict(clip_length=4), 'config.data.clip_length=4, but .* have 3 frames'),
    (dict(batch_size=12), "'train' .* 11 clips, .*data.batch_size=12"),
    (dict(split='test'), "no split 'test', only .*'train', 'validation'"),
    (dict(shards_dir='nowhere'), "config.data.shards_dir='nowhere'"),
  ],
)
def test_what_does_not_fit_is_named(small_shards, changes, message):
  with pytest.raises(ValueError, match=message):
    _iterator(small_shards, **changes)
