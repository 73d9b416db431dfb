"""What a run writes down: JSON lines, TensorBoard events, a progress bar.

The workdir gets `metrics.jsonl` (the record: one JSON object per line with
`step`, `wall_time` in seconds since the epoch, and metrics) and TensorBoard
event files (for looking at). Both survive a kill at any moment: every call is
flushed before it returns, and `Logger.resume` takes back what a restarted run
will write again.

A number that is not finite becomes `null` in `metrics.jsonl` (strict JSON has
no NaN), reads back as NaN from `read_metrics`, goes to TensorBoard as it is
(which marks it with a triangle), and is warned about once per metric.
"""

import io
import json
import logging
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from PIL import Image
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer import event_file_writer

METRICS_FILE = 'metrics.jsonl'
_LINE_SECONDS = 10.0  # between progress lines where there is no terminal


class Logger:
  """Writes the metrics, pictures and progress of one run.

  Log a step before its checkpoint is written: what lies at or before the
  checkpoint's step is kept on `resume`, and is not written again.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    total_steps: int,
    name: str,
    shown: Sequence[str] = ('loss',),
  ):
    """Opens the files in `workdir` for appending, and draws the bar.

    Args:
      workdir: made if missing.
      total_steps: at which the progress bar is full.
      name: in front of the progress bar.
      shown: the metrics repeated in the progress bar.
    """
    self._dir = pathlib.Path(workdir)
    self._dir.mkdir(parents=True, exist_ok=True)
    self._shown = {metric: '' for metric in shown}
    self._warned = set()
    self._lines, self._num_lines = _open_metrics(self._dir / METRICS_FILE)
    _sort_before_now(self._dir)
    self._events = event_file_writer.EventFileWriter(str(self._dir))
    self._bar = _bar(None, total_steps, name, 'step')

  def sync(self) -> int:
    """Waits until the lines are on the disk, and says how many there are.

    Those of the run before a restart are among them; for `resume`.
    """
    os.fsync(self._lines.fileno())
    return self._num_lines

  def resume(self, step: int, num_lines: int):
    """Forgets what a killed run wrote beyond `step`, and goes on from there.

    Args:
      step: of the checkpoint the run goes on from; -1 forgets everything (the
        run was killed before its first checkpoint).
      num_lines: what `sync` said then. A step may have lines before and after
        its checkpoint.
    """
    self._lines.close()
    self._lines, self._num_lines = _open_metrics(
      self._dir / METRICS_FILE, num_lines
    )
    # Readers drop what they have read with a step >= that of a START event;
    # TensorBoard's page takes a run's first START for no restart, hence two.
    for _ in range(2):
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      event = event_pb2.Event(
        wall_time=time.time(), step=step + 1, session_log=start
      )
      self._events.add_event(event)
    self._events.flush()
    self._bar.initial = self._bar.n = self._bar.last_print_n = max(step, 0)
    self._bar.refresh()

  def say(self, text: str):
    """Shows a line above the progress bar."""
    self._bar.write(text, file=sys.stderr)

  def advance(self, step: int):
    """Moves the progress bar to `step`; cheap enough for every step."""
    self._bar.update(step - self._bar.n)

  def scalars(self, step: int, metrics: Mapping[str, Any]):
    """Writes one line of metrics, and moves the progress bar to `step`.

    Args:
      step: agent or gradient steps taken so far.
      metrics: name to number ([] array of any kind, or a Python number).

    Raises:
      ValueError: if a metric is not a single number, or is called 'step' or
        'wall_time'.
    """
    now = time.time()
    line = {'step': int(step), 'wall_time': now}
    values = []
    for name, value in metrics.items():
      if name in line:
        raise ValueError(f'A metric cannot be called {name!r}.')
      if np.shape(value) != ():
        raise ValueError(
          f'metric {name!r} has shape {list(np.shape(value))}, expected [].'
        )
      value = float(value)
      if not math.isfinite(value) and name not in self._warned:
        self._warned.add(name)
        logging.warning('%s is %s at step %d.', name, value, step)
      line[name] = value if math.isfinite(value) else None
      values.append(summary_pb2.Summary.Value(tag=name, simple_value=value))
      if name in self._shown:
        self._shown[name] = f'{value:.4g}'
    self._lines.write(json.dumps(line, allow_nan=False) + '\n')
    self._lines.flush()
    self._num_lines += 1
    self._add(step, values, now)
    shown = ', '.join(f'{k}={v}' for k, v in self._shown.items() if v)
    self._bar.set_postfix_str(shown, refresh=False)
    self.advance(step)

  def image(self, step: int, name: str, image: np.ndarray):
    """Writes a picture to TensorBoard; `image` is [H, W, 3] uint8."""
    _check_uint8(name, image, ndim=3)
    data = io.BytesIO()
    Image.fromarray(image).save(data, 'PNG')
    self._add_image(step, name, image.shape, data.getvalue())

  def video(self, step: int, name: str, video: np.ndarray, fps: float):
    """Writes a clip to TensorBoard as an animated GIF.

    Args:
      step: as in `scalars`.
      name: tag.
      video: [T, H, W, 3] uint8.
      fps: frames per second; GIF rounds a frame's time to 10 ms.
    """
    _check_uint8(name, video, ndim=4)
    frames = [Image.fromarray(frame) for frame in video]
    data = io.BytesIO()
    frames[0].save(
      data,
      'GIF',
      save_all=True,
      append_images=frames[1:],
      duration=round(1000 / fps),
      loop=0,
    )
    self._add_image(step, name, video.shape[1:], data.getvalue())

  def close(self):
    """Closes the files and the progress bar."""
    self._bar.close()
    self._lines.close()
    self._events.close()

  def _add_image(self, step, name, shape, data):
    H, W, C = shape
    image = summary_pb2.Summary.Image(
      height=H, width=W, colorspace=C, encoded_image_string=data
    )
    value = summary_pb2.Summary.Value(tag=name, image=image)
    self._add(step, [value], time.time())

  def _add(self, step, values, now):
    self._events.add_event(
      event_pb2.Event(
        wall_time=now,
        step=int(step),
        summary=summary_pb2.Summary(value=values),
      )
    )
    self._events.flush()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, float]]:
  """Reads `metrics.jsonl`, in the order written.

  A last line that was torn by a kill is left out; null becomes NaN.

  Returns:
    One dict per line: 'step' (int), 'wall_time' (seconds) and the metrics; []
    if there is no file.

  Raises:
    ValueError: if another line than the last is not JSON.
  """
  path = pathlib.Path(workdir) / METRICS_FILE
  if not path.exists():
    return []
  return [
    {k: math.nan if v is None else v for k, v in line.items()}
    for line in _complete_lines(path)
  ]


def progress(
  work: Iterable | int, description: str, unit: str = 'it'
) -> tqdm.tqdm:
  """A progress bar with rate and time left, for any long stage.

  Where stderr is not a terminal, a line every ten seconds or so.

  Args:
    work: what to iterate over, or how many units of work there are.
    description: in front of the bar.
    unit: what is counted, singular.

  Returns:
    What to iterate over or, if `work` is a number, a context manager whose
    `update(units)` is called.
  """
  if isinstance(work, int):
    return _bar(None, work, description, unit)
  return _bar(work, None, description, unit)


class _LineStream:
  """Turns a bar redrawn in place into lines, for log files."""

  encoding = 'utf-8'

  def write(self, text: str):
    text = text.replace('\x1b[A', '').strip()
    if text:
      sys.stderr.write(text + '\n')

  def flush(self):
    sys.stderr.flush()


def _bar(iterable, total, description, unit) -> tqdm.tqdm:
  settings = dict(iterable=iterable, total=total, desc=description, unit=unit)
  if sys.stderr.isatty():
    return tqdm.tqdm(**settings, dynamic_ncols=True)
  return tqdm.tqdm(
    **settings,
    file=_LineStream(),
    mininterval=_LINE_SECONDS,
    miniters=1,
    bar_format='{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} '
    '[{elapsed}<{remaining}, {rate_fmt}{postfix}]',
  )


def _open_metrics(
  path: pathlib.Path, num_lines: int | None = None
) -> tuple[io.TextIOBase, int]:
  """Opens for appending, without torn lines and those after `num_lines`."""
  kept = []
  if path.exists():
    kept = _complete_lines(path)[:num_lines]
    new = path.with_suffix('.tmp')
    with open(new, 'w', encoding='utf-8') as file:
      file.writelines(json.dumps(line) + '\n' for line in kept)
      file.flush()
      os.fsync(file.fileno())
    os.replace(new, path)
  return open(path, 'a', encoding='utf-8'), len(kept)


def _complete_lines(path: pathlib.Path) -> list[dict]:
  # A torn line is the last and lacks its newline: it is what split leaves over.
  *complete, _ = path.read_text(encoding='utf-8').split('\n')
  lines = []
  for number, line in enumerate(complete, 1):
    try:
      lines.append(json.loads(line))
    except json.JSONDecodeError as error:
      raise ValueError(f'{path}, line {number}: not JSON: {line!r}.') from error
  return lines


def _sort_before_now(workdir: pathlib.Path):
  """Sees to it that a new event file sorts behind those already there.

  TensorBoard reads event files in the order of their names, which start with
  the second they were made in; a purge only reaches what was read before it.
  Files of this very second, or of a clock that was put back since, get earlier
  names.
  """
  limit = int(time.time()) - 1
  for path in sorted(workdir.glob('events.out.tfevents.*'), reverse=True):
    *front, second, rest = path.name.split('.', 4)
    if int(second) > limit:
      path.rename(path.with_name('.'.join([*front, f'{limit:010d}', rest])))
    limit = min(int(second), limit) - 1


def _check_uint8(name: str, array: np.ndarray, ndim: int):
  if array.dtype != np.uint8 or array.ndim != ndim or array.shape[-1] != 3:
    shape = '[H, W, 3]' if ndim == 3 else '[T, H, W, 3]'
    raise ValueError(
      f'{name!r} is {array.dtype}{list(array.shape)}, expected uint8{shape}.'
    )
