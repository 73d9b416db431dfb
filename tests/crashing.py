"""Functions that end, block or fill the process they run in.

Processes of their own import this file, so it imports nothing that is slow.
"""

import ctypes
import os
import pathlib
import signal
import sys

_left = []


def double(x):
  return 2 * x


def fail(text):
  raise ValueError(text)


def act(how, file):
  """Harms its process; 'killed_once' only as long as there is no `file`."""
  if how == 'segfault':
    ctypes.string_at(0)
  elif how == 'abort':
    os.abort()
  elif how == 'hang':
    while True:
      pass
  elif how == 'memory':
    return len(bytearray(2**33))
  elif how == 'large_answer':
    return bytes(7 * 2**27)  # of 2**30 bytes, twice
  elif how == 'leave':
    _left.append(bytes(5 * 2**27))
  elif how == 'killed_once' and not os.path.exists(file):
    pathlib.Path(file).touch()
    os.kill(os.getpid(), signal.SIGKILL)
  elif how == 'killed':
    os.kill(os.getpid(), signal.SIGKILL)
  return os.getpid()


def preprocess_and_die_once(pids, config_json, worker, num_workers):
  """What a worker of preprocessing does; the first time, worker 0 is killed.

  That is when it would say that its second shard is whole.

  Args:
    pids: a folder, in which every worker notes the numbers of its processes.
    config_json: as the others, of `preprocess_work.work`.
    worker: which.
    num_workers: of how many.
  """
  from experiments import preprocess_work

  path = pathlib.Path(pids, str(worker))
  lives, shards = path.exists(), []

  def hook(event, arguments):
    if event == 'os.rename' and '/progress/' in str(arguments[1]):
      shards.append(arguments[1])
      if len(shards) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

  if worker == 0 and not lives:
    sys.addaudithook(hook)
  with open(path, 'a') as file:
    file.write(f'{os.getpid()}\n')
  preprocess_work.work(config_json, worker, num_workers)
