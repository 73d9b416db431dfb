"""Runs a command that is struck by a signal at a chosen change of a folder.

  python struck.py <folder> <change> <delay> <signal> <script> <arguments...>

The <change>-th time that the process opens, makes, renames or deletes anything
in <folder>, counted from 1, it gets the signal, <delay> seconds later. With
<change> 0 it is left alone, and the number of changes is written to
<folder>.changes at its end. Its clock is off by STRUCK_CLOCK seconds.

SIGTERM goes to whatever the process has started as well, and twice to the
process and its group, as schedulers and `timeout` send it.
"""

import os
import pathlib
import runpy
import signal
import sys
import threading
import time

import living

_EVENTS = (
  'open',
  'os.mkdir',
  'os.rename',
  'os.remove',
  'os.rmdir',
  'os.truncate',
)


def main() -> None:
  folder, change, delay, number, *sys.argv = sys.argv[1:]
  clock, off = time.time, float(os.environ.get('STRUCK_CLOCK', 0))
  time.time = lambda: clock() + off
  folder, change = os.path.abspath(folder), int(change)
  count, now, struck = 0, threading.Event(), threading.Event()

  def strike():
    now.wait()
    time.sleep(float(delay))
    if int(number) == signal.SIGTERM:
      living.tell_all(os.getpid(), signal.SIGTERM)
    else:
      os.kill(os.getpid(), int(number))
    struck.set()

  def hook(event, arguments):
    nonlocal count
    if event not in _EVENTS or not isinstance(arguments[0], str | os.PathLike):
      return
    if os.path.abspath(arguments[0]).startswith(folder + os.sep):
      count += 1
      if count == change:
        now.set()
        if not float(delay):
          struck.wait()  # so that it happens here and not later

  threading.Thread(target=strike, daemon=True).start()
  sys.addaudithook(hook)
  try:
    runpy.run_path(sys.argv[0], run_name='__main__')
  finally:
    if not change:
      pathlib.Path(f'{folder}.changes').write_text(str(count))


if __name__ == '__main__':
  main()
