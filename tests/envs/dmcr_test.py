"""Tests of DMC Remastered."""

import os

import numpy as np
import pytest

from drp_jax.envs import dmc, dmcr, gl, looks

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


@pytest.mark.parametrize('task', dmcr.TASKS)
def test_dynamics_and_rewards_are_those_of_the_suite(task):
  env = dmcr.DMCR(task, looks.FACTORS, texture_size=SIZE, draw=False)
  from dm_control import suite  # after the choice of OpenGL

  _, info = env.reset(seed=3)  # with everything on that it wears
  plain = suite.load(
    *dmc.split_task(task), task_kwargs={'random': info['dynamics_seed']}
  )
  plain.reset()
  rng = np.random.default_rng(0)
  for _ in range(20):
    action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
    reward = env.advance(action)[0]
    assert reward == plain.step(action).reward
    np.testing.assert_array_equal(
      env.unwrapped.physics.get_state(), plain.physics.get_state()
    )
  plain.close()


def test_tasks_are_the_originals():
  gl.select_backend()
  from dm_control import suite

  others = {'cartpole_two_poles', 'cartpole_three_poles'}
  others |= {'humanoid_run_pure_state'}  # differs by what is no image
  expected = {
    f'{domain}_{name}'
    for domain, name in suite.ALL_TASKS
    if domain in looks.DOMAINS
  }
  assert set(dmcr.TASKS) == expected - others


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
  'factor', [name for name in looks.FACTORS if name != 'target']
)
def test_toggling_a_factor_leaves_the_others(walker, factor):
  everything, _ = walker.reset(seed=14)
  assert_toggled('walker_run', factor, everything, look_of(walker))


@pytest.mark.parametrize('factor', ['target', 'light', 'camera'])
def test_toggling_where_there_is_a_target_and_a_light_that_moves(
  finger, factor
):
  everything, _ = finger.reset(seed=14)
  assert_toggled('finger_turn_easy', factor, everything, look_of(finger))


@pytest.fixture(scope='module')
def finger():
  env = dmcr.DMCR('finger_turn_easy', looks.FACTORS, SHADOW, SIZE)
  yield env
  env.close()


def assert_toggled(task, factor, image, look):
  """That without `factor` the episode of seed 14 differs in it alone."""
  others = tuple(name for name in looks.FACTORS if name != factor)
  env = dmcr.DMCR(task, others, SHADOW, SIZE)
  without, _ = env.reset(seed=14)
  assert (without != image).any()  # it can be seen
  now = look_of(env)
  changed = {name for name in look if not np.array_equal(look[name], now[name])}
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

  def arrays(kind):
    names = [name for name in dir(model) if name.startswith(kind)]
    return np.concatenate(
      [np.ravel(np.float64(getattr(model, name))) for name in sorted(names)]
    )

  head = model.vis.headlight
  headlight = np.concatenate([head.ambient, head.diffuse, head.specular])
  return {
    'background': texture('skybox'),
    'floor': texture('grid'),
    'body': model.mat_rgba[[material('self'), material('effector')]],
    'target': model.mat_rgba[material('target')],
    'reflectance': model.mat_reflectance[material('grid')],
    'light': np.concatenate([headlight, arrays('light_')]),
    'camera': arrays('cam_'),
  }


@pytest.mark.parametrize('domain', looks.DOMAINS)
def test_every_domain_is_drawn_with_the_robot_in_view(domain):
  task = next(name for name in dmcr.TASKS if name.startswith(domain))
  env = dmcr.DMCR(task, looks.FACTORS, SHADOW, SIZE)
  rng = np.random.default_rng(0)
  images = []
  for seed in range(4):
    images.append(env.reset(seed=seed)[0])
    for _ in range(3):
      env.advance(rng.uniform(-1, 1, env.action_space.shape))
    image = env.render()
    assert image.std() > 5
    scene = env.unwrapped.scene()
    seen = scene['geom'][scene['geom'] >= 0]
    assert scene['moves'][seen].sum() > 15  # pixels; a ball and a cup are small
  assert len(np.unique(images, axis=0)) == 4
  env.close()


def test_the_hoppers_camera_stays_unless_asked():
  assert dmcr.default_factors('walker_run') == looks.FACTORS
  assert set(looks.FACTORS) - set(dmcr.default_factors('hopper_hop')) == {
    'camera'
  }
  still = dmcr.DMCR('hopper_stand', texture_size=SIZE, draw=False)
  asked = dmcr.DMCR(
    'hopper_stand', looks.FACTORS, texture_size=SIZE, draw=False
  )
  before = look_of(still)
  for env in (still, asked):
    env.reset(seed=1)
  np.testing.assert_array_equal(before['camera'], look_of(still)['camera'])
  assert (before['camera'] != look_of(asked)['camera']).any()


def test_color_of_the_body_is_seen():
  env = dmcr.DMCR('walker_run', ('body',), SHADOW, SIZE)
  image, info = env.reset(seed=8)
  plain = dmc.DMC('walker_run', SHADOW)
  stock, _ = plain.reset(seed=info['dynamics_seed'])
  changed = (image != stock).any(-1)
  assert 50 < changed.sum() < 1000  # a robot's worth of pixels
  expected = looks.draw(info['visual_seed'], 'walker', 1, 1).body[:3]
  mean = image[changed].mean(0) - image[changed].mean()
  assert np.argmax(mean) == np.argmax(expected)
  env.close()
  plain.close()


def test_textures_of_a_folder_are_on_the_screen(tmp_path):
  from PIL import Image

  for kind, color in (('skies', (255, 0, 0)), ('floors', (0, 255, 0))):
    (tmp_path / kind).mkdir()
    Image.new('RGB', (8, 8), color).save(tmp_path / kind / 'only.png')
  factors = ('background', 'floor')
  env = dmcr.DMCR('walker_run', factors, SHADOW, SIZE, str(tmp_path))
  image, _ = env.reset(seed=0)
  np.testing.assert_array_equal(image[0], np.tile([255, 0, 0], [64, 1]))
  assert image[-1].mean(0).argmax() == 1
  env.close()


def test_memory_does_not_grow_with_resets(walker):
  # Rebuilding the environment leaks 1 to 2 MiB every time.
  assert growth(walker, after=20, until=120) < 15  # MiB


@pytest.mark.slow
def test_memory_does_not_grow_with_a_thousand_resets(walker):
  assert growth(walker, after=200, until=1000) < 15  # MiB


def growth(env, after, until):
  """Resident MiB of `until` resets above those of the first `after`."""

  def resident():
    with open('/proc/self/statm') as file:
      return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20

  for seed in range(after):  # the first fill the allocator's pools
    env.reset(seed=seed)
  before = resident()
  for seed in range(after, until):
    env.reset(seed=seed)
  return resident() - before


@pytest.mark.slow
@pytest.mark.parametrize('task', dmcr.TASKS)
def test_random_actions_through_whole_episodes(task):
  env = dmcr.DMCR(task, looks.FACTORS, SHADOW, SIZE)
  rng = np.random.default_rng(0)
  for seed in range(3):
    env.reset(seed=seed)
    for step in range(1, 1001):
      if step % 2:  # every action twice
        action = rng.uniform(-1, 1, env.action_space.shape)
      reward, terminated, truncated, _ = env.advance(action)
      assert 0 <= reward <= 1 and not terminated
      assert truncated == (step == 1000)
      if step % 20 == 0:
        assert env.observation_space.contains(env.render())
  env.close()


def test_unknown_names_are_refused():
  with pytest.raises(ValueError, match=r'factors.*color.*background'):
    dmcr.DMCR('walker_run', ('color',))
  with pytest.raises(ValueError, match=r'lqr_lqr_2_1.*fish_upright'):
    dmcr.DMCR('lqr_lqr_2_1', ())
