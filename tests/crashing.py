"""Functions that end, block or fill the process they run in.

Isolated processes import this file, so it imports nothing that is slow.
"""

import ctypes
import os
import pathlib
import signal


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
  elif how == 'killed_once' and not os.path.exists(file):
    pathlib.Path(file).touch()
    os.kill(os.getpid(), signal.SIGKILL)
  elif how == 'killed':
    os.kill(os.getpid(), signal.SIGKILL)
  return os.getpid()
