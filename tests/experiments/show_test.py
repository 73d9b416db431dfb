"""The commands that show what a pre-trained model has learned."""

import csv
import json

import numpy as np
import pytest
import random_pretraining
from PIL import Image

from configs import preprocess
from drp_jax.data import shards
from drp_jax.runs import workdir
from experiments import (
  clip_batches,
  run_preprocess,
  show_actions,
  show_attention,
  show_predictions,
)
from experiments import prediction_scores as scores

_FRAMES = 12


@pytest.fixture(scope='module')
def pushes(tmp_path_factory):
  """Shards of hands that push, by the command that users run."""
  root = tmp_path_factory.mktemp('pushes')
  config = preprocess.get_config('pushes').unlock()
  config.path, config.data.shards_dir = str(root / 'videos'), str(root / 'set')
  config.pushes.clips_per_class = 5
  config.data.clip_length = config.data.clip_stride = _FRAMES
  config.data.num_workers = 1
  run_preprocess.preprocess(config)
  return config.data.shards_dir


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return random_pretraining.write(
    tmp_path_factory.mktemp('run'), 'drp', _FRAMES
  )


def _size(path):
  with Image.open(path) as image:
    image.load()
    return image.size


def test_folders_are_labels(pushes):
  source = shards.open_split(pushes, 'train', None)
  labels = sorted(int(clip['label']) for clip in source)
  assert labels == 5 * [0] + 5 * [1] + 5 * [2]


def test_batches_hold_every_clip_in_order():
  clips = [
    {
      'image': np.full((3, 64, 64, 3), i, np.uint8),
      'flow': np.zeros((3, 64, 64, 2), np.float16),
      'points': np.full((3, 32, 2), i, np.float32),
      'visible': np.ones((3, 32), bool),
    }
    for i in range(11)
  ]
  assert [c['image'][0, 0, 0, 0] for c in clip_batches.spaced(clips, 3)] == [
    0, 5, 10
  ]  # fmt: skip
  (first, one), (second, other) = clip_batches.in_batches(clips, 4)
  assert (first, second) == (0, 8)
  assert one.motion.points[:, 0, 0, 0].tolist() == list(range(8))
  assert other.motion.points.shape == one.motion.points.shape == (8, 3, 4, 2)
  assert other.image[:, 0, 0, 0, 0].tolist() == [8, 9, 10] + 5 * [10]
  (_, still), _ = clip_batches.in_batches(clips, None)
  assert still.motion is None


def test_errors_by_hand():
  true = np.full((1, 2, 64, 64, 3), 100, np.uint8)
  model = true.copy()
  model[0, 1] = 151
  found = show_predictions._errors(true, model)
  np.testing.assert_allclose(found['mse'], [0.0, 0.04], atol=1e-7)
  np.testing.assert_allclose(found['psnr'], [60.0, 13.979], atol=1e-3)
  # Of flat pictures only the comparison of means is left.
  a, b = 100 / 255, 151 / 255
  ssim = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
  np.testing.assert_allclose(found['ssim'], [1.0, ssim], atol=1e-4)


def _show(models, pushes, out, clips=9, body=scores.BODY, following=()):
  return show_predictions.show(
    models, pushes, 'train', clips, body, following, out
  )


def test_predictions(run, pushes, tmp_path):
  out = tmp_path / 'see'
  found = _show({'DRP': run}, pushes, out)
  errors = found['errors']
  assert errors['DRP']['mse'] > errors[scores.COPY]['mse'] > 0
  assert 0 < errors['DRP']['recon_ssim'] < 1
  with open(out / 'errors.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 3 * 12  # copies; predictions, reconstructions
  seen = [r for r in rows if r['model'] == 'DRP' and int(r['frame']) < 5]
  kinds = [[r['mse'] for r in seen if r['kind'] == k] for k in
           ('prediction', 'reconstruction')]  # fmt: skip
  assert kinds[0] == kinds[1]  # frames that were seen
  copied = [r for r in rows if r['model'] == scores.COPY]
  assert [float(r['mse']) for r in copied[:5]] == 5 * [0.0]
  # Three bodies; the truth, a model in two rows and copies.
  wide, high = _size(out / 'predictions.png')
  assert wide > 10 * 128 and high > 3 * 4 * 128
  _size(out / 'predictions.webp')
  assert json.loads((out / 'errors.json').read_text()) == found
  assert (out / 'bodies.md').read_text().startswith('## DRP\n')


def test_scores_of_bodies(run, pushes, tmp_path):
  body = r'pushing_(\w+)|(putting)'
  found = _show({'DRP': run}, pushes, tmp_path, 15, body, ['putting'])
  drp = found['scores']['DRP']
  assert set(drp['bodies']) == {'left_to_right', 'right_to_left', 'putting'}
  assert {row['videos'] for row in drp['bodies'].values()} == {5}
  kinds = [scores.COPY, scores.RECONSTRUCTION, scores.PREDICTION]
  controls = [scores.OTHER, scores.STILL]
  assert set(drp['mean']) == {*kinds, *controls}
  assert len(drp['bars']) == 4 + 4
  # Every video is a clip long, so means over videos are means over clips.
  copied = found['errors'][scores.COPY]['mse']
  np.testing.assert_allclose(drp['mean'][scores.COPY]['all'], copied, atol=6e-6)
  for row in drp['bodies'].values():
    share = row['pixels_that_move']
    assert 0.005 < share < 0.5  # a hand and a thing
    for errors in row['errors'].values():
      mixed = share * errors['moving'] + (1 - share) * errors['still']
      np.testing.assert_allclose(errors['all'], mixed, rtol=0.2)
  # Copying errs where things move.
  copied = drp['mean'][scores.COPY]
  assert copied['moving'] > 4 * copied['still']
  # Context tokens differ from draw to draw.
  assert 0 < drp['spread']['all'] < 0.1 * drp['mean'][scores.PREDICTION]['all']
  text = (tmp_path / 'bodies.md').read_text()
  assert all(f'| {name} | 5 |' in text for name in drp['bodies'])


def test_what_systems_follow(pushes, tmp_path):
  models = {
    'IPV': random_pretraining.write(tmp_path / 'a', 'ipv', _FRAMES),
    'PreLAR': random_pretraining.write(tmp_path / 'b', 'prelar', _FRAMES),
    'Flow': random_pretraining.write(
      tmp_path / 'c', 'drp', _FRAMES, 'global_flow'
    ),
  }
  found = _show(models, pushes, tmp_path / 'see')['scores']
  plain = {scores.COPY, scores.RECONSTRUCTION, scores.PREDICTION}
  assert set(found['IPV']['mean']) == plain
  for label in ('PreLAR', 'Flow'):
    mean = found[label]['mean']
    assert set(mean) == plain | {scores.OTHER, scores.STILL}
    own, other, still = (
      mean[kind]['all']
      for kind in (scores.PREDICTION, scores.OTHER, scores.STILL)
    )
    assert own != other and own != still
  assert found['PreLAR']['spread']['all'] == 0  # nothing is left to chance
  _, high = _size(tmp_path / 'see' / 'predictions.png')
  assert high > 3 * (2 + 2 * 3) * 128  # three bodies


def test_all_draws_have_fixed_seeds(run, pushes, tmp_path):
  models = {'a': run, 'b': run}
  found = _show(models, pushes, tmp_path, 4)['scores']
  assert found['a'] == found['b']


def test_names_of_bodies_that_there_are_not(run, pushes, tmp_path):
  with pytest.raises(ValueError, match=r"--following=.*\['cat'\].*pushing"):
    _show({'DRP': run}, pushes, tmp_path, following=['cat'])
  with pytest.raises(ValueError, match='--body=.*pushes.*must be found'):
    _show({'DRP': run}, pushes, tmp_path, body='(pushes)')
  assert not list(tmp_path.iterdir())


def test_models_by_name():
  parse = show_predictions.parse_models
  assert parse(['DRP=a/b', 'IPV=c=d']) == {'DRP': 'a/b', 'IPV': 'c=d'}
  for entries in (['DRP'], ['=a'], ['A=a', 'A=b']):
    with pytest.raises(ValueError, match='LABEL=WORKDIR'):
      parse(entries)


def test_probe_finds_what_is_there_and_nothing_else():
  rng = np.random.default_rng(0)
  groups = np.repeat([0, 1, 2], 40)
  videos = np.arange(120).astype(str)
  told = rng.normal(size=(120, 4)) + 10 * np.eye(4)[groups]
  found = show_actions.probe(told, groups, videos)
  assert found == {'linear': 5 * [1.0], 'neighbors': 5 * [1.0]}
  noise = show_actions.probe(rng.normal(size=(120, 4)), groups, videos)
  assert all(np.mean(x) < 0.5 for x in noise.values())  # chance is a third
  # Vectors that say which video it is, and no more: of two clips of a video
  # none helps the other.
  videos = np.repeat(np.arange(60), 2)
  known = rng.normal(size=(60, 8))[videos] * 10
  found = show_actions.probe(known, groups, videos.astype(str))
  assert np.mean(found['neighbors']) < 0.6
  with pytest.raises(ValueError, match='at least 5 videos'):
    show_actions.probe(told, groups, groups.astype(str))


def test_actions(run, pushes, tmp_path):
  names = ['left to right', 'right to left', 'put down']
  found = show_actions.show(
    run, pushes, 'train', (), names, 6, tmp_path / 'see'
  )
  # The mean flow tells three motions apart; so they are what they are called.
  assert np.mean(found['mean flow']['linear']) > 0.6
  assert set(found) == {'a_agg', 'a_agg, untrained', 'mean flow'}
  _size(tmp_path / 'see' / 'tsne.png')
  text = (tmp_path / 'see' / 'tsne.svg').read_text()
  assert text.count('<svg') == 1
  record = json.loads((tmp_path / 'see' / 'probe.json').read_text())
  assert record['clips'] == dict.fromkeys(names, 5)
  with pytest.raises(ValueError, match=r'--labels=\[0, 7\].*\[0, 1, 2\]'):
    show_actions.show(run, pushes, 'train', (0, 7), (), 6, tmp_path)
  with pytest.raises(ValueError, match='--names'):
    show_actions.show(run, pushes, 'train', (0, 1), ['a'], 6, tmp_path)


def test_attention(run, pushes, tmp_path):
  found = show_attention.show(run, pushes, 'train', 5, tmp_path / 'see')
  config = workdir.read_config(run)
  assert {len(v) for v in found.values()} == {config.dae.num_blocks}
  assert all(0 < x < 1 for x in found['on_itself'])
  assert all(0 < x <= 1 for x in found['evenness'])
  assert all(-1 <= x <= 1 for x in found['with_speed'])
  wide, _ = _size(tmp_path / 'see' / 'attention.png')
  assert wide > 2 * (1 + config.dae.num_blocks) * 192


def test_clips_of_another_length_are_refused(pushes, tmp_path):
  run = random_pretraining.write(tmp_path, 'drp', 25)
  message = 'config.data.clip_length=25, but .* have 12 frames'
  with pytest.raises(ValueError, match=message):
    _show({'DRP': run}, pushes, tmp_path)
  with pytest.raises(ValueError, match=message):
    show_actions.show(run, pushes, 'train', (), (), 6, tmp_path)
  with pytest.raises(ValueError, match=message):
    show_attention.show(run, pushes, 'train', 5, tmp_path)


def test_systems_without_aggregated_action(pushes, tmp_path):
  folder = random_pretraining.write(tmp_path, 'ipv', _FRAMES)
  with pytest.raises(ValueError, match="'ipv' has no aggregated action"):
    show_actions.show(folder, pushes, 'train', (), (), 6, tmp_path)
  with pytest.raises(ValueError, match=r"'ipv' has no \[MAT\]"):
    show_attention.show(folder, pushes, 'train', 6, tmp_path)
