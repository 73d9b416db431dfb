"""Environments in processes: rounds, failures, and how they end."""

import functools
import itertools
import math
import os
import pathlib
import signal
import subprocess
import sys
from multiprocessing import connection

import living
import marching
import numpy as np
import pytest

from drp_jax.envs import driver

_REST = np.zeros((2, 2), np.float32)


@pytest.fixture
def opened():
  """Opens drivers that are closed after the test."""
  drivers = []

  def open_driver(make_env, num_envs=2, **settings):
    drivers.append(driver.Driver(make_env, num_envs, **settings))
    return drivers[-1]

  yield open_driver
  for one in drivers:
    one.close()


def _step(envs, actions=_REST):
  envs.send(actions)
  return envs.receive()


def test_a_round_by_hand(opened):
  """Three steps in the one, one in the other, which then waits."""
  envs = opened(marching.Uneven)
  assert (envs.num_envs, envs.action_size) == (2, 2)
  frames = envs.reset([2, 4])
  assert frames.arrived.all() and not frames.is_last.any()
  np.testing.assert_array_equal(frames.image[0], marching.picture(2))
  np.testing.assert_array_equal(frames.image[1], marching.picture(4))
  np.testing.assert_array_equal(frames.reward, [0, 0])

  frames = _step(envs)
  assert frames.arrived.all()
  np.testing.assert_array_equal(frames.is_last, [False, True])
  np.testing.assert_array_equal(
    frames.image[1], np.roll(marching.picture(4), 1, 1)
  )
  frames = _step(envs)
  np.testing.assert_array_equal(frames.arrived, [True, False])
  np.testing.assert_array_equal(frames.reward, [2, 0])
  np.testing.assert_array_equal(frames.success, [True, False])
  assert not frames.image[1].any() and not frames.failed.any()
  frames = _step(envs)
  np.testing.assert_array_equal(frames.is_last, [True, False])
  assert not frames.is_terminal.any()
  # Nothing goes on, and nothing is waited for.
  assert not _step(envs).arrived.any()
  assert envs.reset([5, 5]).arrived.all()


def test_each_environment_gets_its_own_action(opened):
  envs = opened(functools.partial(marching.Echo, 5))
  envs.reset([1, 2])
  frames = _step(envs, np.float32([[0.25, 0.5], [-1, 0.5]]))
  np.testing.assert_array_equal(frames.reward, [0.75, -0.5])
  assert frames.reward.dtype == np.float32


def test_fewer_episodes_than_environments(opened):
  envs = opened(functools.partial(marching.March, 1, terminates=True))
  np.testing.assert_array_equal(envs.reset([4]).arrived, [True, False])
  frames = _step(envs)
  np.testing.assert_array_equal(frames.is_last, [True, False])
  np.testing.assert_array_equal(frames.is_terminal, [True, False])


def test_the_caller_goes_on_while_environments_step(opened, tmp_path):
  """`send` returns before the step, which waits for what we do after it."""
  envs = opened(functools.partial(marching.Waiting, tmp_path / 'go'))
  envs.reset([1, 2])
  envs.send(_REST)
  (tmp_path / 'go').touch()
  assert envs.receive().arrived.all()


@pytest.mark.parametrize('how', ['die', 'raise', 'nan', 'float', 'small'])
def test_an_environment_that_fails_loses_its_episode_only(opened, how, caplog):
  def make_env():
    return marching.Fragile(marching.March(3), {7: how}, at_step=2)

  envs = opened(make_env)
  envs.reset([7, 8])
  assert _step(envs).arrived.all()
  frames = _step(envs)
  np.testing.assert_array_equal(frames.failed, [True, False])
  np.testing.assert_array_equal(frames.arrived, [False, True])
  assert not frames.image[0].any()
  frames = _step(envs)
  np.testing.assert_array_equal(frames.arrived, [False, True])
  np.testing.assert_array_equal(frames.is_last, [False, True])
  assert not frames.failed.any()
  reason = {
    'die': 'code -9',
    'raise': 'physics is bad',
    'nan': 'reward is nan',
    'float': 'a frame float32[64, 64, 3], expected uint8[64, 64, 3]',
    'small': 'a frame uint8[32, 32, 3], expected uint8[64, 64, 3]',
  }
  assert reason[how] in caplog.text
  # The new process serves the next round.
  frames = envs.reset([9, 10])
  assert frames.arrived.all()
  np.testing.assert_array_equal(frames.image[0], marching.picture(9))


def test_failures_without_end_are_an_error(opened, monkeypatch):
  """With the last traceback; an episode that ends well is a new start."""
  monkeypatch.setattr(driver, 'MAX_FAILURES', 3)

  def make_env():
    return marching.Fragile(marching.March(1), {7: 'raise'}, at_step=1)

  envs = opened(make_env, 1)
  for _ in range(2):
    for seed in (7, 7, 8):
      envs.reset([seed])
      _step(envs)
  for _ in range(2):
    envs.reset([7])
    _step(envs)
  envs.reset([7])
  with pytest.raises(
    RuntimeError, match=r'(?s)failed 3 times.*Traceback.*the physics is bad'
  ):
    _step(envs)


def _wrong_setting():
  raise ValueError("config.task='no' must be something else.")


def _broken():
  raise OSError('no such device')


@pytest.mark.parametrize(
  ('make_env', 'error', 'message'),
  [
    (_wrong_setting, ValueError, r"^config\.task='no' must be something else"),
    (_broken, RuntimeError, r'(?s)does not open.*OSError: no such device'),
    (lambda: os._exit(3), RuntimeError, 'ended with code 3'),
    (marching.Gray, ValueError, r'observes .*84, 84.*\(64, 64, 3\) of uint8'),
    (marching.Buttons, ValueError, r'acts by Discrete\(3\), expected a Box'),
    (marching.Wide, ValueError, r'acts by .*-1 to 1.*RescaleAction'),
  ],
)
def test_what_does_not_open_is_one_error(make_env, error, message):
  with pytest.raises(error, match=message):
    driver.Driver(make_env, 1)


def test_there_is_at_least_one_environment():
  with pytest.raises(ValueError, match=r'config\.env\.num_envs=0'):
    driver.Driver(functools.partial(marching.March, 1), 0)


def test_scenes_come_where_they_are_asked_for(opened):
  """Of the frames that arrived only."""
  assert opened(marching.Uneven).reset([0, 1]).scene is None
  envs = opened(marching.Uneven, scenes=True)
  assert envs.reset([0, 1]).scene['time'].tolist() == [0, 0]
  assert _step(envs).scene['time'].tolist() == [1, 1]
  assert _step(envs).scene['time'].tolist() == [2]


def test_an_environment_without_scenes_is_refused():
  class Blind(marching.March):
    scene = property()  # not there

  with pytest.raises(ValueError, match=r"'sim' asks .* scene\(\), .* Blind"):
    driver.Driver(functools.partial(Blind, 1), 1, scenes=True)


def test_workers_do_without_jax_and_without_our_main_file(opened):
  """What experiments open in them is light, too."""

  class Looking(marching.March):
    def reset(self, *, seed=None, options=None):
      from experiments import finetune_work

      image, info = super().reset(seed=seed, options=options)
      assert callable(finetune_work.make_env)
      heavy = {'jax', 'flax', 'orbax', 'torch', 'pytest'} & sys.modules.keys()
      return image, info | {'success': not heavy}

  assert opened(functools.partial(Looking, 1), 1).reset([1]).success.all()


@pytest.mark.parametrize('at_step', [0, 1])
@pytest.mark.parametrize('how', ['sleep', 'loop', 'lock'])
def test_an_environment_that_hangs_is_one_that_died(
  opened, how, at_step, caplog
):
  """In a reset or a step; its process is ended, and the next one serves."""

  def make_env():
    return marching.Hanging(marching.March(3), {7: how}, at_step)

  envs = opened(make_env, 1)
  [pid] = envs.pids
  envs._max_seconds = 0.2  # not before: opening may take as long as it likes
  frames = envs.reset([7])
  if at_step:
    assert frames.arrived.all()
    frames = _step(envs)
  assert frames.failed.all() and not frames.arrived.any()
  what = 'step' if at_step else 'reset'
  assert f'{what} took longer than config.env.max_seconds=0.2' in caplog.text
  assert not living.runs(pid)
  envs._max_seconds = math.inf
  assert envs.reset([8]).arrived.all()
  assert _step(envs).arrived.all()


def test_the_others_do_not_suffer_from_one_that_hangs(opened):
  def make_env():
    return marching.Hanging(marching.March(3), {7: 'sleep'}, 1)

  envs = opened(make_env)
  envs.reset([7, 8])
  envs.send(_REST)
  connection.wait([envs._workers[1].pipe])  # however long its step takes
  envs._max_seconds = 0.2
  frames = envs.receive()
  np.testing.assert_array_equal(frames.failed, [True, False])
  np.testing.assert_array_equal(frames.arrived, [False, True])


def test_one_that_hangs_while_it_opens_is_an_error():
  with pytest.raises(
    RuntimeError, match='not open:\nmake_env took .*max_seconds=0.2'
  ):
    driver.Driver(lambda: marching.hang('sleep'), 1, max_seconds=0.2)


def test_one_that_hangs_when_it_is_opened_again_fails_again(
  opened, monkeypatch, tmp_path
):
  """Opened for the first time it dies in the first step."""
  monkeypatch.setattr(driver, 'MAX_FAILURES', 3)

  def make_env():
    if (tmp_path / 'opened').exists():
      marching.hang('sleep')
    (tmp_path / 'opened').touch()
    return marching.Fragile(marching.March(2), {7: 'die'}, 1)

  envs = opened(make_env, 1)
  envs.reset([7])
  assert _step(envs).failed.all()
  envs._max_seconds = 0.2
  assert envs.reset([8]).failed.all()
  with pytest.raises(RuntimeError, match=r'(?s)failed 3 times.*make_env took'):
    envs.reset([8])


def test_time_in_which_nobody_waited_does_not_count(opened, monkeypatch):
  """As of a job that was suspended for a day."""
  clock = itertools.count(0, 86_400)
  envs = opened(functools.partial(marching.March, 1), 1)
  envs._max_seconds = 1000.0
  monkeypatch.setattr(driver.time, 'monotonic', lambda: next(clock))
  assert envs.reset([1]).arrived.all()
  assert _step(envs).arrived.all()


def test_waiting_ends_when_it_is_told_to(opened):
  """Unless the frames are there."""

  def make_env():
    return marching.Hanging(marching.March(3), {7: 'loop'}, 2)

  envs = opened(make_env, 1)
  envs.reset([7])
  envs.send(_REST)
  connection.wait([envs._workers[0].pipe])
  assert envs.receive(stop=lambda: True).arrived.all()
  envs.send(_REST)
  assert envs.receive(stop=lambda: True) is None


def test_a_failure_does_not_count_when_all_is_told_to_end(opened):
  """What ends the job may have ended the environment."""

  def make_env():
    return marching.Fragile(marching.March(3), {7: 'die'}, 1)

  envs = opened(make_env, 1)
  envs.reset([7])
  envs.send(_REST)
  envs._workers[0].process.wait()
  assert envs.receive(stop=lambda: True) is None


def test_environments_without_an_episode_wait(opened):
  envs = opened(functools.partial(marching.March, 1))
  frames = envs.reset([None, 3])
  np.testing.assert_array_equal(frames.arrived, [False, True])
  np.testing.assert_array_equal(frames.image[1], marching.picture(3))
  np.testing.assert_array_equal(_step(envs).is_last, [False, True])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_to_workers_change_nothing(opened, tmp_path, number):
  """While they wait, and in the middle of a step."""
  envs = opened(functools.partial(marching.Waiting, tmp_path / 'go'))
  for pid in envs.pids:
    os.kill(pid, number)
  envs.reset([1, 2])
  envs.send(_REST)
  for pid in envs.pids:
    os.killpg(pid, number)
  (tmp_path / 'go').touch()
  assert envs.receive().arrived.all()


def test_a_death_is_noticed_though_the_pipe_is_held(opened):
  """By a process that the environment has forked; it ends as well."""

  class Forking(marching.March):
    def reset(self, **_):
      if os.fork() == 0:
        marching.hang('sleep')
      os.kill(os.getpid(), signal.SIGKILL)

  envs = opened(functools.partial(Forking, 1), 1)
  [pid] = envs.pids
  assert envs.reset([1]).failed.all()
  assert living.all_end([p for p in _group(pid) if living.runs(p)])


def _group(leader):
  """Processes of a group."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      if os.getpgid(int(path.name)) == leader:
        found.append(int(path.name))
    except ProcessLookupError:
      pass
  return found


_SCRIPT = """
import os, sys, time
import marching
import numpy as np
from drp_jax.envs import driver

where, how = sys.argv[1:]

def make_env():
  if where == 'make_env':
    print(os.getpid(), flush=True)
    marching.hang(how)
  return marching.Hanging(marching.March(9), {7: how}, 1)

envs = driver.Driver(make_env, 1)
if where != 'idle':
  envs.reset([7])
  envs.send(np.zeros((1, 2), np.float32))
print(*envs.pids, flush=True)
time.sleep(10_000)
"""


@pytest.mark.parametrize(
  ('where', 'how'),
  [
    ('idle', ''),
    ('make_env', 'lock'),
    ('step', 'sleep'),
    ('step', 'loop'),
    ('step', 'lock'),
  ],
)
def test_workers_end_when_the_driver_s_process_is_killed(where, how):
  with subprocess.Popen(
    [sys.executable, '-c', _SCRIPT, where, how],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    pid = int(process.stdout.readline())
    assert living.runs(pid)
    process.send_signal(signal.SIGKILL)
    assert living.all_end([pid])


def test_close_ends_the_workers(opened):
  envs = opened(functools.partial(marching.March, 1))
  pids = envs.pids
  envs.close()
  assert not any(map(living.runs, pids))
