"""Measures of a model and of an agent, against numbers made by hand."""

import contextlib
import functools

import jax
import marching
import numpy as np
import pytest

from configs import finetune_dmcr, finetune_metaworld
from configs import pretrain as pretrain_config
from drp_jax.data import input_pipeline, shards
from drp_jax.envs import driver
from drp_jax.train import batches, evaluate, rollout
from experiments import finetune_work

_N = evaluate.CONTEXT_STEPS


def _pretrain_config(folder):
  config = pretrain_config.get_config('debug')
  config.data.shards_dir = str(folder)
  config.pretrain.eval_batches = 2
  return config


def _held_out(config):
  return evaluate.held_out_batches(config, config.dae.num_keypoints)


def test_held_out_clips_are_the_same_at_every_call(real_shards):
  config = _pretrain_config(real_shards)
  first = _held_out(config)
  config.seed = 5  # of the run, which has no say here
  second = _held_out(config)
  assert len(first) == 2
  assert first[0].image.shape == (4, 25, 64, 64, 3)
  jax.tree.map(np.testing.assert_array_equal, first, second)
  source = shards.open_split(real_shards, 'validation', None)
  known = {source[i]['image'].tobytes() for i in range(len(source))}
  for batch in first:
    assert {image.tobytes() for image in batch.image} <= known


@pytest.mark.parametrize(
  ('batch_size', 'eval_batches', 'sizes'),
  [(8, 2, [6]), (4, 2, [4, 2]), (4, 1, [4]), (3, 5, [3, 3]), (2, 2, [2, 2])],
)
def test_few_held_out_clips_make_smaller_batches(
  real_shards, batch_size, eval_batches, sizes
):
  """Six clips, of which none comes twice."""
  config = _pretrain_config(real_shards)
  config.data.batch_size = batch_size
  config.pretrain.eval_batches = eval_batches
  found = _held_out(config)
  assert [len(batch.image) for batch in found] == sizes
  for batch in found:
    leaves = jax.tree.leaves(batch)
    assert {len(leaf) for leaf in leaves} == {len(batch.image)}
  images = {image.tobytes() for batch in found for image in batch.image}
  assert len(images) == sum(sizes)


def test_the_first_held_out_clips_are_those_of_an_endless_stream(real_shards):
  config = _pretrain_config(real_shards)
  config.data.batch_size = 2
  config.pretrain.eval_batches = 3
  stream = input_pipeline.make_iterator(
    real_shards, 'validation', 25, 2, config.dae.num_keypoints, evaluate._SEED
  )
  for batch in _held_out(config):
    expected = batches.video_batch(next(stream))
    jax.tree.map(np.testing.assert_array_equal, batch, expected)


def test_clips_of_another_length_are_not_held_out_clips(real_shards):
  config = _pretrain_config(real_shards)
  config.data.clip_length = 24
  with pytest.raises(
    ValueError, match='config.data.clip_length=24, but .* have 25 frames'
  ):
    _held_out(config)


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


def test_every_clip_counts_alike(system, variables, video_batch):
  """A mean over three clips and one is no mean of two batches."""
  parts = [
    jax.tree.map(lambda x, s=part: x[s], video_batch)
    for part in (slice(0, 3), slice(3, 4))
  ]
  each = [evaluate.held_out(system, variables, [part])[0] for part in parts]
  both, clip = evaluate.held_out(system, variables, parts)
  assert len(video_batch.image) == 4 and clip.shape[2] == 3 * 64
  for name, value in both.items():
    expected = (3 * each[0][name] + each[1][name]) / 4
    np.testing.assert_allclose(value, expected, rtol=1e-5)
  # Those without a random part are those of one batch.
  whole, _ = evaluate.held_out(system, variables, [video_batch])
  name = 'held_out/copy_last_mse'
  np.testing.assert_allclose(both[name], whole[name], rtol=1e-5)
  # A mean of the two would be another number.
  assert abs(each[0][name] - each[1][name]) > 1e-3 * whole[name]


@pytest.fixture(scope='module')
def played(config, system, variables):
  """Evaluates the debug agent in two environments that march on, twice."""
  actor = rollout.PolicyActor(
    system, 2, config.dae.num_keypoints, jax.random.key(1), explore=False
  )
  extractor = finetune_work.make_extractor(config, 0)
  make_env = functools.partial(marching.March, 4)
  with contextlib.closing(driver.Driver(make_env, 2)) as envs:
    return [
      evaluate.agent_episodes(envs, extractor, actor, variables, 3)
      for _ in range(2)
    ]


def test_rows_by_hand(played):
  """1 + 2 + 3 + 4, and a success at step 2, which must not be the last."""
  rows, frames = played[0]
  seeds = [row.pop('seed') for row in [dict(row) for row in rows]]
  assert [row['episode'] for row in rows] == [0, 1, 2]
  for row in rows:
    assert (row['return'], row['success'], row['length']) == (10, 1, 4)
  # The frames are the last episode's: the third of these seeds.
  assert frames.shape == (5, 64, 64, 3) and frames.dtype == np.uint8
  first = marching.picture(seeds[2])
  np.testing.assert_array_equal(frames[0], first)
  np.testing.assert_array_equal(frames[4], np.roll(first, 4, 1))


def test_evaluation_repeats_its_episodes(played):
  """Seeds are the same at every call, and of no training run."""
  (rows, frames), (again, same_frames) = played
  assert rows == again
  np.testing.assert_array_equal(frames, same_frames)
  seeds = {row['seed'] for row in rows}
  training = {rollout.episode_seed(s, n) for s in range(50) for n in range(50)}
  assert len(seeds) == 3 and not training & seeds


def test_a_summary_by_hand():
  returns, successes = (1.0, 2.0, 6.0), (0, 1, 0)
  rows = [
    {'return': r, 'success': s} for r, s in zip(returns, successes, strict=True)
  ]
  metrics = evaluate.summary(rows, 4)
  assert metrics['eval/dropped'] == 1
  assert metrics['eval/return'] == 3
  np.testing.assert_allclose(metrics['eval/return_std'], (14 / 3) ** 0.5)
  assert metrics['eval/return_min'] == 1 and metrics['eval/return_max'] == 6
  np.testing.assert_allclose(metrics['eval/success'], 1 / 3)
  assert evaluate.summary([], 2) == {'eval/dropped': 2}


def test_an_evaluation_whose_episodes_fail_goes_on():
  failures = {rollout.episode_seed(evaluate._SEED, 0): 'raise'}

  def make_env():
    return marching.Fragile(marching.March(2), failures, at_step=1)

  random = rollout.RandomActor(0, 2)

  class Actor:
    """Random, but answers like a policy."""

    begin = random.begin

    def __call__(self, variables, steps):
      del variables
      return random(steps)

  with contextlib.closing(driver.Driver(make_env, 1)) as envs:
    rows, frames = evaluate.agent_episodes(envs, None, Actor(), None, 2)
    nothing = evaluate.agent_episodes(envs, None, Actor(), None, 1)
  assert [row['episode'] for row in rows] == [1] and len(frames) == 3
  assert nothing == ([], None)


def _evaluated(config, round_steps):
  """Agent steps of a run's evaluations."""
  steps, evaluated = [], -1
  while not steps or steps[-1] < config.finetune.num_steps:
    step = round_steps * (1 + (steps[-1] // round_steps if steps else 0))
    while step < config.finetune.prefill or not evaluate.due(
      config, step, evaluated
    ):
      step += round_steps
    steps.append(step)
    evaluated = step
  return steps


def test_the_schedule_of_the_paper():
  """IPV: after prefill, then every 10 000 agent steps (D14)."""
  dmcr, arm = finetune_dmcr.get_config(), finetune_metaworld.get_config()
  assert _evaluated(dmcr, 500) == list(range(1_000, 511_001, 10_000))
  assert _evaluated(arm, 500) == list(range(5_000, 255_001, 10_000))
  # Four environments: the first ends of rounds of 2000 steps after these.
  assert _evaluated(dmcr, 2_000)[:3] == [2_000, 12_000, 22_000]
  assert _evaluated(dmcr, 2_000)[-1] == 512_000
  text = evaluate.schedule(dmcr)
  assert '10 episodes' in text
  for agent, control in (('1_000', '2_000'), ('511_000', '1_022_000')):
    assert f'{agent} agent steps ({control} environment steps)' in text


def test_the_end_is_evaluated_too():
  config = finetune_dmcr.get_config()
  config.finetune.num_steps = 3_000
  assert _evaluated(config, 500) == [1_000, 3_000]


def test_random_actions_are_compared_on_the_same_episodes(played):
  env = marching.March(4)
  np.testing.assert_array_equal(evaluate.random_returns(env, 3), [10, 10, 10])
  assert env.seeds == [row['seed'] for row in played[0][0]]
  actions = np.stack(env.actions)
  assert np.abs(actions).max() > 0.8
  evaluate.random_returns(env, 3)
  np.testing.assert_array_equal(np.stack(env.actions[12:]), actions)
  assert len(np.unique(actions, axis=0)) == 12
