"""The probe of recorded actions, on videos whose motion is known by hand."""

import json
import shutil

import jax
import numpy as np
import pytest
import random_pretraining
import recorded_squares

from configs import preprocess
from drp_jax import recordings
from drp_jax.data import shards
from drp_jax.train import (
  pretrained,
)
from experiments import action_probe, motion_vectors, run_preprocess

_FRAMES = 12


def _extract(videos, shards_dir):
  config = preprocess.get_config('folder')
  config.path, config.data.shards_dir = str(videos), str(shards_dir)
  config.data.clip_length = config.data.clip_stride = _FRAMES
  config.data.validation_fraction, config.data.num_workers = 0.0, 1
  run_preprocess.preprocess(config)
  return str(shards_dir)


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Six each of a square on a rail, one in a plane, and one nobody recorded."""
  folder = tmp_path_factory.mktemp('videos')
  for seed in range(6):
    for axes, body in ((1, 'rail'), (2, 'plane')):
      path = folder / f'{body}{seed}.mp4'
      recorded_squares.write(
        path, 3 * _FRAMES, 24, 10 * seed + axes, axes, body
      )
  recorded_squares.write(folder / 'unknown.mp4', _FRAMES)
  recordings.path_of(folder / 'unknown.mp4').unlink()
  return folder


@pytest.fixture(scope='module')
def squares(videos, tmp_path_factory):
  return _extract(videos, tmp_path_factory.mktemp('squares') / 'shards')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  return {
    agent: random_pretraining.write(
      tmp_path_factory.mktemp(agent), agent, _FRAMES
    )
    for agent in ('drp', 'ipv')
  }


def test_all_representations_and_bodies(runs, squares, tmp_path):
  found = action_probe.show(
    runs['drp'], runs['ipv'], squares, 'train', 100, str(tmp_path / 'see')
  )
  rail = 'rail (1 velocities, 1 actions)'
  plane = 'plane (2 velocities, 2 actions)'
  assert found['bodies'] == {
    plane: {'clips': 18, 'videos': 6},
    rail: {'clips': 18, 'videos': 6},
  }
  assert found['targets'].keys() == {'joint_velocity', 'action'}
  scores = found['targets']['action']
  assert (
    scores['r2'].keys()
    == scores['accuracy'].keys()
    == {
      *('a_agg', 'a_agg, untrained', 'local tokens', 'local tokens, untrained'),
      *('flow at keypoints', 'flow of image', 'z of ipv'),
    }
  )
  # The square is all that moves. So its flow knows how it moved, which is the
  # index rule: entry t of both led to frame t.
  for measure, least in (('r2', 0.8), ('accuracy', 0.4)):
    flow = scores[measure]['flow of image']
    assert flow['mean'][0] > least
    for point, low, high in flow['bodies'].values():
      assert least < low <= point <= high <= 1
    assert flow['mean'][0] == pytest.approx(
      np.mean([x[0] for x in flow['bodies'].values()]), abs=1e-4
    )
  assert 0.1 < scores['chance'][plane] < 0.4
  above = scores['above']['r2']
  assert above.keys() == {'a_agg', 'local tokens'}
  assert above['a_agg'].keys() == scores['r2'].keys() - above.keys()
  assert above['a_agg']['flow of image'][0] == pytest.approx(
    scores['r2']['a_agg']['mean'][0] - scores['r2']['flow of image']['mean'][0],
    abs=1e-3,
  )
  # Velocities are the same numbers in another unit.
  velocities = found['targets']['joint_velocity']
  assert velocities['r2']['flow of image'] == scores['r2']['flow of image']
  record = json.loads((tmp_path / 'see' / 'action_probe.json').read_text())
  assert record == found
  text = (tmp_path / 'see' / 'action_probe.md').read_text()
  assert text == action_probe.table(found)
  lines = text.splitlines()
  assert lines[0].startswith('| Joint velocities: R2 of ridge regression | pl')
  assert len({line.count('|') for line in lines if line}) == 1
  assert sum('| a_agg, above ' in line for line in lines) == 4


def test_entries_of_another_frame_are_not_told(runs, videos, tmp_path):
  """What would happen if actions stood one frame late."""
  shutil.copytree(videos, tmp_path / 'late')
  for path in (tmp_path / 'late').glob('*.mp4'):
    recording = recordings.read(path)
    if recording is not None:
      late = [0, *range(len(recording) - 1)]
      recordings.write(path, recording[late])
  late = _extract(tmp_path / 'late', tmp_path / 'shards')
  found = action_probe.show(
    runs['drp'], '', late, 'train', 100, str(tmp_path / 'see')
  )
  scores = found['targets']['action']['r2']
  assert 'z of ipv' not in scores
  assert scores['flow of image']['mean'][0] < 0.4


def test_vectors_belong_to_their_steps(runs, squares):
  source = shards.open_split(squares, 'train', None)
  clips = [source[i] for i in range(9)]  # more than one batch
  model = motion_vectors.load(runs['drp'])
  found = motion_vectors.of_tokens(model)(clips)
  T, D = _FRAMES - 1, model.config.dae.width
  assert found['a_agg'].shape == found['local tokens'].shape == (9, T, D)
  flow = motion_vectors.of_flow(clips)
  by_hand = clips[3]['flow'][5].astype(float).reshape(-1, 2)
  np.testing.assert_allclose(
    flow['flow of image'][3, 4],
    [*by_hand.mean(0), np.linalg.norm(by_hand, axis=-1).mean()],
    rtol=1e-4,
  )
  # Entry t is changed by the flow to frame t; those before it are not.
  other = {**clips[3], 'flow': clips[3]['flow'].copy()}
  other['flow'][5] = 3.0
  changed = motion_vectors.of_tokens(model)([other])
  for name, x in found.items():
    same = np.isclose(x[3], changed[name][0], atol=1e-5).all(-1)
    assert same[:4].all() and not same[4]
  np.testing.assert_array_equal(
    motion_vectors.of_flow([other])['flow of image'][0, 4, :2], [3, 3]
  )


def test_flow_at_lost_keypoints_does_not_count():
  flow = np.zeros((3, 64, 64, 2), np.float16)
  flow[:, :, 32:] = 3, 4
  points = np.zeros((3, 32, 2), np.float32)
  points[:, :8, 0] = 40  # where it moves
  visible = np.zeros((3, 32), bool)
  visible[1, :16] = True  # at frame 2 all are lost
  clip = {'flow': flow, 'points': points, 'visible': visible}
  found = motion_vectors.of_flow([clip])
  half, quarter = np.array([1.5, 2, 2.5]), np.array([0.75, 1, 1.25])
  np.testing.assert_allclose(found['flow at keypoints'], [[half, quarter]])
  np.testing.assert_allclose(found['flow of image'], [[half, half]])


def test_states_that_see_images_know_nothing_of_later_ones(runs, squares):
  source = shards.open_split(squares, 'train', None)
  model = pretrained.load(runs['ipv'])
  # Random kernels, by which no pixel would change the mode of a latent.
  model.variables['params']['image_encoder'] = jax.tree.map(
    lambda x: 20 * x, model.variables['params']['image_encoder']
  )
  clip = source[0]
  other = {**clip, 'image': clip['image'].copy()}
  other['image'][6:] = 255 - other['image'][6:]
  one, changed = (
    motion_vectors.of_latents(model)([c])['z of ipv'][0] for c in (clip, other)
  )
  assert one.shape == (
    _FRAMES - 1,
    model.system.model.latent_dynamics.feat_size,
  )
  np.testing.assert_allclose(one[:5], changed[:5], atol=1e-5)
  assert (np.abs(one[5:] - changed[5:]).max(1) > 1e-3).all()


def test_the_untrained_network_is_the_same_but_for_its_parameters(runs):
  model = pretrained.load(runs['drp'])
  fresh = pretrained.untrained(model)
  assert jax.tree.structure(fresh.variables['params']) == jax.tree.structure(
    model.variables['params']
  )
  assert fresh.variables['constants'] == model.variables['constants']
  kernels = [
    jax.tree.leaves(v['params']['dae'])[-1] for v in (model.variables,
                                                      fresh.variables)
  ]  # fmt: skip
  assert not np.allclose(*kernels)


def test_bodies_of_few_videos_are_left_out_and_named(runs, videos, tmp_path):
  (tmp_path / 'few').mkdir()
  for path in videos.iterdir():
    if not path.name.startswith(('plane0', 'plane1')):
      shutil.copy(path, tmp_path / 'few')
  few = _extract(tmp_path / 'few', tmp_path / 'shards')
  found = action_probe.show(runs['drp'], '', few, 'train', 99, str(tmp_path))
  assert list(found['bodies']) == ['rail (1 velocities, 1 actions)']
  assert found['left_out'] == {'plane (2 velocities, 2 actions)': 4}
  last = action_probe.table(found).splitlines()[-1]
  assert last.endswith(
    'fewer than 5 videos: plane (2 velocities, 2 actions): 4.'
  )


def test_what_does_not_fit_is_named(runs, squares, videos, tmp_path):
  def show(workdir, ipv, shards_dir, clips=100):
    action_probe.show(workdir, ipv, shards_dir, 'train', clips, str(tmp_path))

  with pytest.raises(ValueError, match="'ipv' has no aggregated action"):
    show(runs['ipv'], '', squares)
  with pytest.raises(ValueError, match=r"--ipv=.*'drp' must be 'ipv' or 'apv'"):
    show(runs['drp'], runs['drp'], squares)
  with pytest.raises(ValueError, match='at least 5 videos of a body; .*: 4'):
    show(runs['drp'], '', squares, clips=4)
  (tmp_path / 'alone').mkdir()
  for name in ('unknown.mp4', 'rail0.mp4'):  # without its recording
    shutil.copy(videos / name, tmp_path / 'alone')
  alone = _extract(tmp_path / 'alone', tmp_path / 'none')
  with pytest.raises(
    ValueError, match=r'no clip has recorded actions or joint'
  ):
    show(runs['drp'], '', alone)
