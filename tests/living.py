"""Whether processes are still there."""

import contextlib
import os
import pathlib
import time

_SECONDS = 120.0  # that a busy machine may take to end a process


def runs(pid: int) -> bool:
  """Whether a process is there, and not only its exit code (a zombie)."""
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
  except (FileNotFoundError, ProcessLookupError):
    return False
  return state.split()[0] not in 'ZX'


def descendants(pid: int) -> list[int]:
  """Processes that a process has started, and those that they started."""
  children = {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      # After the name, which may hold anything: state, parent, ...
      parent = path.read_text().rpartition(')')[2].split()[1]
    except OSError:  # it has ended
      continue
    children.setdefault(int(parent), []).append(int(path.parent.name))
  found, new = [], [pid]
  while new:
    new = [child for parent in new for child in children.get(parent, ())]
    found += new
  return found


def tell_all(leader: int, number: int) -> None:
  """Sends a signal to a job, as what ends it does.

  Args:
    leader: of the job's group of processes.
    number: of the signal; all that `leader` has started get it, then its whole
      group does, twice, as by `timeout`.
  """
  for pid in descendants(leader):
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, number)
  for _ in range(2):
    os.killpg(leader, number)


def all_end(pids) -> bool:
  """Waits for processes to end; whether they do."""
  end = time.monotonic() + _SECONDS
  while any(map(runs, pids)) and time.monotonic() < end:
    time.sleep(0.05)
  return not any(map(runs, pids))
