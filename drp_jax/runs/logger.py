"""What a run writes down: JSON lines, TensorBoard events, a progress bar.

The workdir gets `metrics.jsonl` (the record: one JSON object per line with
`step`, `wall_time` in seconds since the epoch, and metrics) and TensorBoard
event files (for looking at). Both survive a kill at any moment: every call is
flushed before it returns, and `Logger.resume` takes back what a restarted run
will write again.

A number that is not finite becomes `null` in `metrics.jsonl` (strict JSON has
no NaN), reads back as NaN from `read_metrics`, goes to TensorBoard as it is
(which marks it with a triangle), and is warned about once per metric.

A line that is damaged on the disk costs nothing but itself: readers leave it
out with a warning that names file and line, and a restarted run keeps its
bytes, whatever they are.
"""

import io
import json
import logging
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from drp_jax import extras

with extras.brings('train', __name__):
  import tqdm
  from PIL import Image
  from tensorboard.compat.proto import event_pb2, summary_pb2
  from tensorboard.summary.writer import event_file_writer

METRICS_FILE = 'metrics.jsonl'
# Second it was made in, then host and more.
_EVENT_FILE = re.compile(r'events\.out\.tfevents\.(\d+)\.(.+)')
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
    self._shown = dict.fromkeys(shown, '')
    self._warned = set()
    self._lines, self._num_lines = _open_metrics(self._dir / METRICS_FILE)
    _sort_before_now(self._dir)
    self._events = event_file_writer.EventFileWriter(str(self._dir))
    self._bar = _bar(None, total_steps, name, 'step')

  def sync(self) -> list[int]:
    """Waits until the lines are on the disk, and says where their end is.

    Returns:
      Lines and bytes of the file, with those of the run before a restart; a
      JSON value, for `resume`.
    """
    os.fsync(self._lines.fileno())
    return [self._num_lines, os.fstat(self._lines.fileno()).st_size]

  def resume(self, step: int, end: Sequence[int] | int | None):
    """Forgets what a killed run wrote beyond `step`, and goes on from there.

    Args:
      step: of the checkpoint the run goes on from; -1 forgets everything (the
        run was killed before its first checkpoint).
      end: what `sync` said then. A step may have lines before and after its
        checkpoint. A number of lines, or None for all lines, from older
        checkpoints.
    """
    self._lines.close()
    self._lines, self._num_lines = _open_metrics(
      self._dir / METRICS_FILE, [0, 0] if step < 0 else end
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
    line: dict[str, Any] = {'step': int(step), 'wall_time': now}
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

  A last line that was torn by a kill is left out, and with a warning every line
  that is damaged; null becomes NaN.

  Returns:
    One dict per line: 'step' (int), 'wall_time' (seconds) and the metrics; []
    if there is no file.
  """
  path = pathlib.Path(workdir) / METRICS_FILE
  if not path.exists():
    return []
  # A torn line is the last and lacks its newline: it is what split leaves over.
  *complete, _ = path.read_bytes().split(b'\n')
  lines = []
  for number, text in enumerate(complete, 1):
    line = _parse(text)
    if line is None:
      logging.warning(
        '%s, line %d is damaged and left out: %r', path, number, text[:200]
      )
    else:
      lines.append(line)
  return lines


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
  path: pathlib.Path, end: Sequence[int] | int | None = None
) -> tuple[io.TextIOBase, int]:
  """Opens for appending, without a torn line and what lies after `end`.

  Lines are cut off, never rewritten.

  Returns:
    The file and the number of its lines.
  """
  content = path.read_bytes() if path.exists() else b''
  kept = _end(path, content, end)
  if kept < len(content):
    with open(path, 'r+b') as file:
      file.truncate(kept)
      os.fsync(file.fileno())
  return open(path, 'a', encoding='utf-8'), content[:kept].count(b'\n')


def _end(
  path: pathlib.Path, content: bytes, end: Sequence[int] | int | None
) -> int:
  """Where a file ends that lost what came after `end`, in bytes."""
  whole = content.rfind(b'\n') + 1  # what follows is torn
  if end is None:
    return whole
  num_lines, size = (end, -1) if isinstance(end, int) else end
  # Bytes tell it, since a flipped bit can make a newline or unmake one, unless
  # the file was edited.
  if size == 0 or content[size - 1 : size] == b'\n':
    return size
  lines = content[:whole].split(b'\n')[:-1]
  if size > 0 or len(lines) < num_lines:
    logging.warning(
      '%s was changed: when the run was saved, it had %d lines. Their first %d'
      ' are kept.',
      path,
      num_lines,
      min(num_lines, len(lines)),
    )
  return sum(len(line) + 1 for line in lines[:num_lines])


def _parse(text: bytes) -> dict[str, float] | None:
  """Reads one line; None if it is damaged."""
  try:
    line = json.loads(text)
  except ValueError:
    return None
  if not isinstance(line, dict) or not isinstance(line.get('step'), int):
    return None
  line = {k: math.nan if v is None else v for k, v in line.items()}
  numbers = all(isinstance(v, int | float) for v in line.values())
  return line if numbers and 'wall_time' in line else None


def _sort_before_now(workdir: pathlib.Path):
  """Sees to it that a new event file sorts behind those already there.

  TensorBoard reads event files in the order of their names, which start with
  the second they were made in; a purge only reaches what was read before it.
  Files of this very second, or of a clock that was put back since, get earlier
  names. Files of others that only look like event files are left alone.
  """
  limit = int(time.time()) - 1
  for path in sorted(workdir.glob('events.out.tfevents.*'), reverse=True):
    match = _EVENT_FILE.fullmatch(path.name)
    if match is None or not path.is_file():
      continue
    second, rest = int(match[1]), match[2]
    if second > limit:
      path.rename(path.with_name(f'events.out.tfevents.{limit:010d}.{rest}'))
    limit = min(second, limit) - 1


def _check_uint8(name: str, array: np.ndarray, ndim: int):
  if array.dtype != np.uint8 or array.ndim != ndim or array.shape[-1] != 3:
    shape = '[H, W, 3]' if ndim == 3 else '[T, H, W, 3]'
    raise ValueError(
      f'{name!r} is {array.dtype}{list(array.shape)}, expected uint8{shape}.'
    )
