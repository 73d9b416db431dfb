"""Contact sheets of environments are files of the right size."""

import cv2
import pytest

from configs import finetune_dmcr
from drp_jax.envs import dmcr
from experiments import show_envs


@pytest.fixture(scope='module')
def config():
  config = finetune_dmcr.get_config('debug')
  config.env.episode_length = 500
  config.env.shadow_size, config.env.texture_size = 256, 64
  return config


def test_a_sheet_has_a_row_for_every_seed_and_a_column_for_every_time(
  config, tmp_path
):
  show_envs.show(config, ['pendulum_swingup'], str(tmp_path), num_seeds=2)
  (path,) = tmp_path.iterdir()
  assert path.name == 'pendulum_swingup.png'
  sheet = cv2.imread(str(path))
  columns = len(show_envs.TIMES)
  assert sheet.shape == (2 * (18 + 128), columns * 128 + (columns - 1) * 10, 3)
  first, second = sheet[18:146], sheet[164:]
  assert (first != second).mean() > 0.5  # another scene
  begin, end = first[:, :128], first[:, -128:]
  assert 0.001 < (begin != end).mean() < 0.9  # the same scene, later


def test_an_unknown_task_is_named_and_nothing_is_left(config, tmp_path):
  with pytest.raises(ValueError, match="'walker_fly'"):
    show_envs.show(config, ['walker_fly'], str(tmp_path), num_seeds=1)
  assert not list(tmp_path.iterdir())


def test_all_tasks():
  assert show_envs.task_names('dmcr') == dmcr.TASKS
  assert 'drawer-open' in show_envs.task_names('metaworld')
  with pytest.raises(ValueError, match="'dmc'"):
    show_envs.task_names('dmc')
