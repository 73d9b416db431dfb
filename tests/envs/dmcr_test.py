"""Tests of DMC Remastered."""

import os

import numpy as np
import pytest

from drp_jax.envs import dmc, dmcr, looks

SHADOW = 256  # cheap frames
SIZE = 64


def play(env, seed, num_steps=3):
  """Images [T+1, ...] and rewards [T] of fixed actions."""
  rng = np.random.default_rng(0)
  images, rewards = [env.reset(seed=seed)[0]], []
  for _ in range(num_steps):
    image, reward, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
    images.append(image)
    rewards.append(reward)
  return np.stack(images), np.array(rewards)


@pytest.fixture(scope='module')
def walker():
  env = dmcr.DMCR('walker_run', looks.FACTORS, SHADOW, SIZE)
  yield env
  env.close()


def test_an_episode_is_a_function_of_its_seed(walker):
  images, rewards = play(walker, seed=1)
  other_images, other_rewards = play(walker, seed=2)
  again_images, again_rewards = play(walker, seed=1)
  np.testing.assert_array_equal(images, again_images)
  np.testing.assert_array_equal(rewards, again_rewards)
  assert np.abs(images[0].astype(int) - other_images[0]).mean() > 10
  assert (rewards != other_rewards).any()


def test_a_new_environment_gives_the_same_episode(walker):
  other = dmcr.DMCR('walker_run', looks.FACTORS, SHADOW, SIZE)
  for ours, theirs in zip(play(walker, 4), play(other, 4), strict=True):
    np.testing.assert_array_equal(ours, theirs)
  other.close()


def test_seeds_of_an_episode_are_reported_and_drawn_from_its_own_generator(
  walker,
):
  np.random.seed(0)
  infos = [walker.reset(seed=9)[1], walker.reset()[1]]
  np.random.seed(1)  # no global state is involved (T9)
  assert infos == [walker.reset(seed=9)[1], walker.reset()[1]]
  assert infos[0]['visual_seed'] != infos[1]['visual_seed']
  assert infos[0]['success'] is False
  rng = np.random.default_rng(9)
  assert infos[0]['visual_seed'] == rng.integers(1, 10**6, endpoint=True)
  assert infos[0]['dynamics_seed'] == rng.integers(1, 10**5, endpoint=True)


@pytest.mark.parametrize('task', ['walker_run', 'hopper_stand', 'cheetah_run'])
def test_dynamics_and_rewards_are_those_of_the_suite(task):
  dressed = dmcr.build_environment(task, looks.FACTORS, SIZE)
  env = dmc.DMC(task, draw=False, environment=dressed)
  plain = dmc.DMC(task, draw=False)
  env.reset(seed=3)
  plain.reset(seed=3)
  actions = np.random.default_rng(0).uniform(-1, 1, [100, 6])
  size = env.action_space.shape[0]
  ours = [env.advance(action[:size])[0] for action in actions]
  theirs = [plain.advance(action[:size])[0] for action in actions]
  assert max(theirs) > 0
  np.testing.assert_array_equal(ours, theirs)


def test_time_limit_is_that_of_the_suite():
  for task in ('walker_run', 'hopper_stand', 'cheetah_run'):
    environment = dmcr.build_environment(task, (), SIZE)
    env = dmc.DMC(task, draw=False, environment=environment)
    env.reset(seed=0)
    zeros = np.zeros(env.action_space.shape)
    truncated = [env.advance(zeros)[2] for _ in range(1000)]
    assert truncated == [False] * 999 + [True]


@pytest.mark.parametrize('task', ['walker_run', 'hopper_stand', 'cheetah_run'])
def test_all_factors_off_is_the_suites_own_image(task):
  env = dmcr.DMCR(task, (), SHADOW, SIZE)
  image, info = env.reset(seed=1)
  plain = dmc.DMC(task, SHADOW)
  expected, _ = plain.reset(seed=info['dynamics_seed'])
  if task == 'cheetah_run':  # its floor is wider, which the sky's half shows
    image, expected = image[:30], expected[:30]
  np.testing.assert_array_equal(image, expected)
  env.close()
  plain.close()


@pytest.mark.parametrize(
  'factor', ['background', 'floor', 'body', 'reflectance', 'light']
)
def test_toggling_a_factor_leaves_the_others(walker, factor):
  everything, _ = walker.reset(seed=14)
  others = tuple(name for name in looks.FACTORS if name != factor)
  env = dmcr.DMCR('walker_run', others, SHADOW, SIZE)
  without, _ = env.reset(seed=14)
  assert (without != everything).any()  # it can be seen
  before, now = look_of(walker), look_of(env)
  changed = {
    name for name in before if not np.array_equal(before[name], now[name])
  }
  assert changed == {factor}
  env.close()


def look_of(env):
  """What the compiled model holds of every factor."""
  model = env._physics.model
  material = lambda name: model.name2id(name, 'material')  # noqa: E731

  def texture(name):
    index = model.name2id(name, 'texture')
    height, width = model.tex_height[index], model.tex_width[index]
    start = model.tex_adr[index]
    return model.tex_data[start : start + 3 * height * width].copy()

  head = model.vis.headlight
  return {
    'background': texture('skybox'),
    'floor': texture('grid'),
    'body': model.mat_rgba[[material('self'), material('effector')]],
    'target': model.mat_rgba[material('target')],
    'reflectance': model.mat_reflectance[material('grid')],
    'light': np.stack([head.ambient, head.diffuse, head.specular]),
  }


def test_colour_of_the_body_is_seen():
  env = dmcr.DMCR('walker_run', ('body',), SHADOW, SIZE)
  image, info = env.reset(seed=8)
  plain = dmc.DMC('walker_run', SHADOW)
  stock, _ = plain.reset(seed=info['dynamics_seed'])
  changed = (image != stock).any(-1)
  assert 50 < changed.sum() < 1000  # a robot's worth of pixels
  expected = looks.draw(info['visual_seed'], 1, 1).body[:3]
  mean = image[changed].mean(0) - image[changed].mean()
  assert np.argmax(mean) == np.argmax(expected)
  env.close()
  plain.close()


def test_textures_of_a_folder_are_on_the_screen(tmp_path):
  from PIL import Image

  for kind, color in (('sky', (255, 0, 0)), ('floor', (0, 255, 0))):
    (tmp_path / kind).mkdir()
    Image.new('RGB', (8, 8), color).save(tmp_path / kind / 'only.png')
  factors = ('background', 'floor')
  env = dmcr.DMCR('walker_run', factors, SHADOW, SIZE, str(tmp_path))
  image, _ = env.reset(seed=0)
  np.testing.assert_array_equal(image[0], np.tile([255, 0, 0], [64, 1]))
  assert image[-1].mean(0).argmax() == 1
  env.close()


def test_memory_does_not_grow_with_resets(walker):
  def resident():
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20

  for seed in range(10):  # the first fill the allocator's pools
    walker.reset(seed=seed)
  before = resident()
  for seed in range(60):
    walker.reset(seed=seed)
  assert resident() - before < 15  # MiB; rebuilding leaks 1 to 2 a reset


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match=r'factors.*colour.*background'):
    dmcr.DMCR('walker_run', ('colour',))
  with pytest.raises(ValueError, match=r'lqr_lqr_2_1.*walker, hopper'):
    dmcr.DMCR('lqr_lqr_2_1', ())
