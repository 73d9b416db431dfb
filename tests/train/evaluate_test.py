"""Measures of a model and of an agent, against numbers made by hand."""

import jax
import numpy as np
import pytest

from configs import pretrain as pretrain_config
from drp_jax.data import shards
from drp_jax.train import evaluate, rollout
from experiments import run_dmcr

_N = evaluate.CONTEXT_STEPS


def _pretrain_config(folder):
  config = pretrain_config.get_config('debug')
  config.data.shards_dir = str(folder)
  config.pretrain.eval_batches = 2
  return config


def test_held_out_clips_are_the_same_at_every_call(real_shards):
  config = _pretrain_config(real_shards)
  first = evaluate.held_out_batches(config)
  config.seed = 5  # of the run, which has no say here
  second = evaluate.held_out_batches(config)
  assert len(first) == 2
  assert first[0].image.shape == (4, 25, 64, 64, 3)
  jax.tree.map(np.testing.assert_array_equal, first, second)
  source = shards.open_split(real_shards, 'validation')
  known = {source[i]['image'].tobytes() for i in range(len(source))}
  for batch in first:
    assert {image.tobytes() for image in batch.image} <= known


def test_there_must_be_a_batch_of_held_out_clips(real_shards):
  config = _pretrain_config(real_shards)
  config.data.batch_size = 8  # of 6
  with pytest.raises(ValueError, match="'validation' .* 6 clips"):
    evaluate.held_out_batches(config)


def _batch(video_batch, **motion):
  return video_batch.replace(motion=video_batch.motion.replace(**motion))


@pytest.fixture(scope='module')
def uniform(video_batch):
  """Flow (3, -4) in all pixels of two sequences, (0, 1) in the others."""
  flow = np.zeros(video_batch.motion.flow.shape, np.float16)
  flow[:2, 1:] = [3, -4]
  flow[2:, 1:] = [0, 1]
  visible = np.zeros(video_batch.motion.visible.shape, bool)
  visible[0] = True  # one sequence of four, entry 0 too
  return _batch(video_batch, flow=flow, visible=visible)


@pytest.fixture(scope='module')
def measured(system, variables, uniform):
  scaled = {**variables, 'constants': {'flow_scale': np.float32(2)}}
  return evaluate.held_out(system, scaled, [uniform])


def test_constant_predictions_by_hand(config, measured):
  """A patch is P^2 pixels of flow over 2: squares are 25/4 and 1/4.

  As many entries are hidden in each sequence, so half of what is hidden has
  the one and half the other. The mean patch is (1.5, -1.5) / 2, and both flows
  are (1.5, -2.5) / 2 away from it.
  """
  metrics, _ = measured
  area = config.dae.patch_size**2
  np.testing.assert_allclose(
    metrics['held_out/mae_zero_flow'], area * (25 + 1) / 2 / 4, rtol=1e-5
  )
  np.testing.assert_allclose(
    metrics['held_out/mae_mean_patch'], area * (1.5**2 + 2.5**2) / 4, rtol=1e-5
  )
  assert metrics['held_out/mae'] > 0


def test_visible_keypoints_of_entries_that_move(measured):
  metrics, _ = measured
  np.testing.assert_allclose(metrics['held_out/visible'], 0.25)


def test_copying_the_last_seen_frame_by_hand(measured, uniform):
  """In units of 0..1, over the frames after the context."""
  metrics, _ = measured
  image = uniform.image / 255
  error = np.square(image[:, _N:] - image[:, _N - 1 : _N]).mean()
  np.testing.assert_allclose(
    metrics['held_out/copy_last_mse'], error, rtol=1e-4
  )


def test_true_frames_over_predictions(measured, uniform):
  """Four examples side by side, in time: [T, 2 H, 4 W, 3]."""
  metrics, clip = measured
  T = uniform.image.shape[1]
  assert clip.shape == (T, 128, 256, 3) and clip.dtype == np.uint8
  errors = []
  for index, image in enumerate(uniform.image):
    column = clip[:, :, 64 * index : 64 * (index + 1)]
    np.testing.assert_array_equal(column[:, :64], image)
    errors.append((column[:, 64:] / 255.0 - image / 255.0)[_N:])
  # The lower half is what the error of open-loop prediction is about.
  np.testing.assert_allclose(
    metrics['held_out/open_loop_mse'], np.square(errors).mean(), rtol=0.01
  )


def test_metrics_are_means_over_batches(system, variables, video_batch):
  moved = _batch(video_batch, flow=2 * video_batch.motion.flow)
  one, _ = evaluate.held_out(system, variables, [video_batch])
  two, _ = evaluate.held_out(system, variables, [moved])
  both, clip = evaluate.held_out(system, variables, [video_batch, moved])
  for name, value in both.items():
    assert type(value) is float
    np.testing.assert_allclose(value, (one[name] + two[name]) / 2, rtol=1e-5)
  assert both['held_out/mae_zero_flow'] > 2 * one['held_out/mae_zero_flow']
  np.testing.assert_array_equal(clip[:, :64, :64], video_batch.image[0])


@pytest.fixture(scope='module')
def returns_of(config, system, variables):
  """Evaluates the debug agent in an environment."""
  actor = rollout.PolicyActor(
    system, config.dae.num_keypoints, jax.random.key(1), explore=False
  )
  extractor = run_dmcr.make_extractor(config, 0)

  def call(env, episodes):
    return evaluate.agent_returns(env, extractor, actor, variables, episodes)

  return call


def test_returns_by_hand(march, returns_of):
  """1 + 2 + 3 + 4, and a success at step 2, which must not be the last."""
  env = march(4)
  returns, successes, frames = returns_of(env, 3)
  np.testing.assert_array_equal(returns, [10, 10, 10])
  np.testing.assert_array_equal(successes, [True, True, True])
  assert len(env.actions) == 12
  assert frames.shape == (5, 64, 64, 3) and frames.dtype == np.uint8
  # The last episode's: the third of these seeds.
  first, _ = march(1).reset(seed=env.seeds[2])
  np.testing.assert_array_equal(frames[0], first)
  np.testing.assert_array_equal(frames[4], np.roll(first, 4, 1))


def test_without_a_success(march, returns_of):
  returns, successes, _ = returns_of(march(1), 2)
  np.testing.assert_array_equal(returns, [1, 1])
  np.testing.assert_array_equal(successes, [False, False])


def test_evaluation_repeats_its_episodes(march, returns_of):
  """Seeds and actions are the same at every call, and of no training run."""
  env = march(3)
  returns_of(env, 2)
  returns_of(env, 2)
  assert env.seeds[:2] == env.seeds[2:] and env.seeds[0] != env.seeds[1]
  np.testing.assert_array_equal(env.actions[:6], env.actions[6:])
  training = {rollout.episode_seed(s, n) for s in range(50) for n in range(50)}
  assert not training & set(env.seeds)


def test_random_actions_are_compared_on_the_same_episodes(march, returns_of):
  env, other = march(4), march(4)
  returns_of(env, 3)
  np.testing.assert_array_equal(evaluate.random_returns(other, 3), [10, 10, 10])
  assert other.seeds == env.seeds
  actions = np.stack(other.actions)
  assert np.abs(actions).max() > 0.8
  evaluate.random_returns(other, 3)
  np.testing.assert_array_equal(np.stack(other.actions[12:]), actions)
  assert len(np.unique(actions, axis=0)) == 12
