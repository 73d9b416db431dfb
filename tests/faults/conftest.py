"""Commands that are struck by signals, and what they leave."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_ENV = {
  **os.environ,
  'PYTHONPATH': os.pathsep.join([str(_ROOT), str(_ROOT / 'tests')]),
}
_STRUCK = pathlib.Path(__file__).with_name('struck.py')


class Command:
  """A command of experiments/ that writes into a folder."""

  def __init__(self, script, *arguments):
    """`{}` in an argument stands for the folder."""
    self._script, self._arguments = script, arguments

  def run(self, folder, change=0, delay=0.0, number=signal.SIGKILL, clock=0):
    """Runs it, maybe struck (struck.py); the exit code and what it said.

    Its clock is `clock` seconds ahead.
    """
    done = subprocess.run(
      [
        *(sys.executable, _STRUCK, folder, str(change), str(delay)),
        *(str(int(number)), f'experiments/{self._script}.py'),
        *(argument.format(folder) for argument in self._arguments),
      ],
      cwd=_ROOT,
      env={**_ENV, 'STRUCK_CLOCK': str(clock)},
      start_new_session=True,  # whose group may be struck
      capture_output=True,
      text=True,
      check=False,
    )
    return done.returncode, done.stderr

  def start(self, folder):
    """Starts it, in a group of its own."""
    arguments = [argument.format(folder) for argument in self._arguments]
    return subprocess.Popen(
      [sys.executable, f'experiments/{self._script}.py', *arguments],
      cwd=_ROOT,
      env=_ENV,
      start_new_session=True,
      stderr=subprocess.PIPE,
      text=True,
    )

  def changes(self, folder):
    """How many there were when it ran unharmed."""
    return int(pathlib.Path(f'{folder}.changes').read_text())

  def finish(self, folder):
    """Runs it to its end."""
    code, said = self.run(folder)
    assert code == 0, said[-3000:]

  def kill_and_finish(self, folder, changes, kills, seed):
    """Kills it again and again at random changes, then lets it finish.

    The first and a third of the others come at the very change, the rest some
    time later, when a fast machine may be at the end.
    """
    rng = np.random.default_rng(seed)
    killed = 0
    for number in range(kills):
      change = int(rng.integers(1, changes + 1))
      delay = float(rng.choice([0.0, 0.01, 0.3]) * rng.uniform(0.5, 1.5))
      delay = delay if number else 0.0
      code, said = self.run(folder, change, delay)
      assert code in (0, -signal.SIGKILL), said[-3000:]
      killed += code != 0
    self.finish(folder)
    return killed


@pytest.fixture(scope='session')
def make_command():
  return Command


@pytest.fixture(scope='session')
def small_videos(tmp_path_factory):
  import random_inputs

  from drp_jax.preprocess import video

  folder = tmp_path_factory.mktemp('videos')
  for seed in range(6):
    frames = random_inputs.moving_squares(30, seed)
    video.write_video(folder / f'{seed}.mp4', frames, 25)
  return folder
