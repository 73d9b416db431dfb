"""What led to each frame, of motion that is known by hand and of real tasks."""

import gymnasium
import numpy as np
import pytest

from drp_jax.envs import dmc, dmcr, gl, metaworld, recorder, wrappers

_MODEL = """
<mujoco>
  <worldbody>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0"/>
      <geom size="0.1"/>
      <body name="pole" pos="0 0 0.3">
        <joint name="hinge" type="hinge" axis="0 1 0"/>
        <geom size="0.1"/>
      </body>
    </body>
    <body name="thing">
      <freejoint/>
      <geom size="0.1"/>
    </body>
  </worldbody>
</mujoco>"""


class _Scripted(gymnasium.Env):
  """Every step takes half a second and moves the joints as it is told."""

  body = 'scripted'
  action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

  def __init__(self):
    gl.select_backend()
    import mujoco

    self._model = mujoco.MjModel.from_xml_string(_MODEL)

  @property
  def simulation(self):
    return self._model, self._data

  def reset(self, *, seed=None, options=None):
    import mujoco

    del options
    self._data = mujoco.MjData(self._model)
    self._data.qpos[:2] = seed or 0, 0
    return np.zeros(1), {}

  def step(self, action):
    self._data.qpos[:2] += action  # meters and radians
    self._data.qpos[2:5] += [0, 0, 0.1]
    w = np.pi / 8  # half of a quarter turn, about x
    turn = [np.cos(w), np.sin(w), 0, 0]
    import mujoco

    mujoco.mju_mulQuat(self._data.qpos[5:9], self._data.qpos[5:9].copy(), turn)
    self._data.time += 0.5
    return np.zeros(1), 0.0, False, False, {}


def test_entries_led_to_their_frames():
  env = recorder.Recorder(_Scripted())
  env.reset(seed=7)
  for action in ([0.25, -0.5], [1.0, 0.0], [0.0, 0.125]):
    env.step(np.float32(action))
  found = env.recording()
  assert len(found) == 4 and found.body == 'scripted'
  assert found.action.tolist() == [[0, 0], [0.25, -0.5], [1, 0], [0, 0.125]]
  expected = np.zeros((4, 8))
  # Twice as much in a second; the thing rises and turns about x.
  expected[1:, :2] = [[0.5, -1.0], [2.0, 0.0], [0.0, 0.25]]
  expected[1:, 4], expected[1:, 5] = 0.2, np.pi / 2
  np.testing.assert_allclose(found.joint_velocity, expected, atol=1e-6)
  # Another episode begins anew, with its own first pose.
  env.reset(seed=3)
  env.step(np.zeros(2, np.float32))
  again = env.recording()
  assert len(again) == 2 and not again.action.any()
  np.testing.assert_allclose(again.joint_velocity[1, :2], 0)
  assert len(found) == 4  # what was returned stays


@pytest.mark.parametrize(
  ('make', 'body', 'sizes'),
  [
    (lambda: dmc.DMC('cartpole_swingup', draw=False), 'cartpole', (1, 2)),
    (lambda: dmcr.DMCR('walker_run', draw=False), 'walker', (6, 9)),
    (lambda: metaworld.MetaWorld('reach', draw=False), 'sawyer', (4, 15)),
  ],
  ids=['dmc', 'dmcr', 'metaworld'],
)
def test_velocities_of_tasks_add_up_to_what_moved(make, body, sizes):
  """The sum of velocity times time is the way, of slides and hinges."""
  env = recorder.Recorder(wrappers.ActionRepeat(make(), 2))
  env.reset(seed=0)
  model, data = env.unwrapped.simulation
  joints = [j for j in range(model.njnt) if model.jnt_type[j] >= 2]
  pose, dof = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
  before, way = data.qpos.copy(), np.zeros(model.nv)
  rng = np.random.default_rng(0)
  for _ in range(5):
    time = data.time
    env.step(rng.uniform(-2, 2, sizes[0]))
    way += env.recording().joint_velocity[-1] * (data.time - time)
  found = env.recording()
  assert found.body == body
  assert found.action.shape == (6, sizes[0])
  assert found.joint_velocity.shape == (6, sizes[1])
  assert not found.action[0].any() and not found.joint_velocity[0].any()
  assert np.abs(found.action).max() == 1  # what lies outside was clipped
  moved = (data.qpos - before)[pose]
  assert np.abs(moved).max() > 0.01
  np.testing.assert_allclose(way[dof], moved, atol=1e-5)
  env.close()
