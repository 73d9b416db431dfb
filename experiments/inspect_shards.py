r"""Shows the content of shards: a contact sheet and statistics.

  python -m experiments.inspect_shards --shards_dir=runs/shards --out=runs/look

writes contact_sheet.png (random clips: frame | mask and tracks | flow and
windows | patches, at three times) and report.html, which contains it.
"""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from drp_jax import files
from drp_jax.data import clips, shards
from drp_jax.data import report as report_lib
from drp_jax.ops import patches
from drp_jax.runs import logger
from drp_jax.viz import contact_sheet, curves, overlay, report, video
from experiments import clip_flags, launch

NUM_KEYPOINTS = 16  # number drawn of the stored ones            [Table 5]
PATCH_SIZE = 16  # P, pixels                                     [Table 5]
SPEED_STEP, SPEED_TOP = 0.25, 8.0  # pixels per frame, of the histogram
_SCALE = 2  # enlargement of frames in the contact sheet
_MANY_LABELS = 20  # labels in the table; more are left out


def inspect(
  shards_dir: str,
  out: str,
  split: str,
  num_rows: int,
  num_clips: int,
  seed: int,
) -> dict[str, Any]:
  """Writes the contact sheet and the page.

  Args:
    shards_dir: folder of finished shards.
    out: folder; created if missing.
    split: 'train' or 'validation'.
    num_rows: number of clips in the contact sheet.
    num_clips: number of clips in the statistics.
    seed: seed of the choice of clips.

  Returns:
    The statistics, see `statistics`.

  Raises:
    ValueError: as `shards.open_split`.
  """
  source = shards.open_split(shards_dir, split, None)
  order = np.random.default_rng(seed).permutation(len(source))
  sheet = draw([source[int(i)] for i in order[:num_rows]])
  sample = order[:num_clips]
  found = statistics(
    source[int(i)] for i in logger.progress(sample, 'look', 'clip')
  )
  folder = pathlib.Path(out)
  data = video.encode_png(sheet)
  files.write(folder / 'contact_sheet.png', data)
  books = report_lib.read_report(shards_dir)
  report.write_report(
    folder / 'report.html',
    'What the shards hold',
    [
      _overview(books, split, len(source)),
      report.Section('Clips drawn at random', [_sheet_figure(data)]),
      _motion(found),
      _labels(found),
      _left_out(books),
    ],
    f'{shards_dir}, split {split}; statistics of {len(sample)} clips.',
  )
  return found


def draw(examples: Sequence[clips.Example]) -> np.ndarray:
  """Draws the contact sheet [H, W, 3] uint8 of some examples."""
  rows, titles = [], []
  for example in examples:
    points = example['points'][:, :NUM_KEYPOINTS]
    cropped = patches.crop(example['flow'], points, PATCH_SIZE)
    rows.append(
      overlay.clip_panels(
        example['image'],
        example['flow'],
        points,
        example['visible'][:, :NUM_KEYPOINTS],
        example['mask'],
        np.asarray(cropped),
        _SCALE,
      )
    )
    first = int(example['first_frame'])
    last = first + int(example['num_frames']) - 1
    label = f', label {example["label"]}' if example['label'] >= 0 else ''
    name = example['source_id'].decode()
    titles.append(f'{name}, frames {first} to {last}{label}')
  T = len(examples[0]['image'])
  return contact_sheet.contact_sheet(rows, titles, (1, T // 2, T - 1))


def statistics(examples: Sequence[clips.Example]) -> dict[str, Any]:
  """Computes statistics of examples.

  Args:
    examples: clips of one length T; read once.

  Returns:
    speed_counts: [n], histogram of the flow at visible keypoints, in bins of
      SPEED_STEP pixels per frame; the last bin holds everything faster.
    lost: [T-1], share of keypoints that were lost up to frame t.
    mask_share: mean share of the frame that the mask covers.
    labels: label -> number of clips.
  """
  bins = round(SPEED_TOP / SPEED_STEP)
  speed_counts = np.zeros(bins, np.int64)
  labels, lost, covered = collections.Counter(), [], []
  for example in examples:
    speed = np.linalg.norm(report_lib.flow_at_points(example), axis=-1)
    speed = speed[example['visible'][1:]]
    place = np.minimum(speed // SPEED_STEP, bins - 1).astype(int)
    speed_counts += np.bincount(place, minlength=bins)
    lost.append(1 - example['visible'][1:].mean(axis=1))
    covered.append(example['mask'].mean())
    labels[int(example['label'])] += 1
  return {
    'speed_counts': speed_counts,
    'lost': np.mean(lost, axis=0),
    'mask_share': float(np.mean(covered)),
    'labels': dict(sorted(labels.items())),
  }


def _overview(
  books: dict[str, Any], split: str, num_clips: int
) -> report.Section:
  extractor = ', '.join(f'{k}: {v}' for k, v in books['extractor'].items())
  return report.Section(
    'The set',
    [
      report.Facts(
        [
          (f'clips to {"train on" if split == "train" else "test with"}',
           f'{num_clips}'),
          ('videos used', f'{books["num_videos"]}'),
          *_held_out(books),
          ('videos left out', f'{len(books["left_out"])}'),
          ('videos cut short', f'{len(books.get("cut_short", []))}'),
          ('hard cuts', f'{sum(books.get("cuts", {}).values())}'),
          ('names not taken', f'{len(books.get("not_taken", {}))}'),
          ('clips left out', f'{books["clips_left_out"]}'),
          ('flow scale, pixels per frame', f'{books["flow_scale"]:.2f}'),
        ]
      ),
      report.Text(f'Extracted by {extractor}.'),
    ],
  )  # fmt: skip


def _sheet_figure(data: bytes) -> report.Figure:
  return report.Figure(
    data,
    'Rows of clips: frames, masks with tracks, flow with windows, patches',
    'At the first, the middle and the last motion of each clip: the frame; the'
    ' mask of the first frame and the tracked keypoints (gray rings are lost);'
    ' flow, where hue is direction and saturation is speed, with the windows of'
    ' the patches; the patches.',
  )


def _motion(found: dict[str, Any]) -> report.Section:
  counts, lost = found['speed_counts'], found['lost']
  edges = SPEED_STEP * np.arange(len(counts) + 1)
  lines = [{'step': t, 'lost': share} for t, share in enumerate(lost)]
  return report.Section(
    'Motion',
    [
      report.Figure(
        curves.histogram(
          counts / max(1, counts.sum()),
          edges,
          'share',
          'flow at visible keypoints, pixels per frame',
        ),
        'Histogram of the speed of keypoints',
        f'The last bar is everything faster than {SPEED_TOP - SPEED_STEP}.',
      ),
      report.Figure(
        curves.compared_curves(
          lines, {'lost': 'lost keypoints'}, 'share lost', 'frame of the clip'
        ),
        'Share of lost keypoints over the frames of a clip',
        f'At the last motion {lost[-1]:.0%} are lost. Masks cover'
        f' {found["mask_share"]:.0%} of the first frame on average.',
      ),
    ],
  )


def _labels(found: dict[str, Any]) -> report.Section:
  labels = found['labels']
  if set(labels) <= {-1}:
    return report.Section('Labels', [report.Text('The videos have no labels.')])
  ids = np.arange(min(labels), max(labels) + 1)
  counts = [labels.get(int(i), 0) for i in ids]
  often = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
  return report.Section(
    'Labels',
    [
      report.Figure(
        curves.histogram(
          counts, np.append(ids, ids[-1] + 1) - 0.5, 'clips', 'label'
        ),
        'Clips per label',
        f'{len(labels)} labels. A label of -1 means none.',
      ),
      report.Table(
        ('label', 'clips'),
        [(str(name), str(count)) for name, count in often[:_MANY_LABELS]],
        'The most frequent',
      ),
    ],
  )


def _held_out(books: dict[str, Any]) -> list[tuple[str, str]]:
  """Returns facts that only newer shards record."""
  if not books.get('split_videos'):
    return []
  return [
    ('videos with validation clips', f'{books["split_videos"]["validation"]}'),
    ('of these held out whole', f'{books["held_out_videos"]}'),
  ]


def _left_out(books: dict[str, Any]) -> report.Section:
  not_taken = [
    {'source_id': name, 'reason': reason}
    for name, reason in books.get('not_taken', {}).items()
  ]
  return report.Section(
    'Left out',
    [
      _reasons(books['left_out'], 'videos', 'No video was left out.'),
      _reasons(not_taken, 'names', 'All names in the folder were taken.'),
    ],
  )


def _reasons(
  entries: Sequence[dict[str, str]], what: str, none: str
) -> report.Table | report.Text:
  """Counts entries by their reason, with an example of each."""
  reasons = report_lib.count_reasons(entries)
  if not reasons:
    return report.Text(none)
  examples = {}
  for entry in entries:
    word, _, detail = entry['reason'].partition(': ')
    examples.setdefault(word, f'{entry["source_id"]}: {detail}')
  rows = [(word, str(n), examples[word]) for word, n in reasons.items()]
  return report.Table(('reason', what, 'one of them'), rows)


def main() -> None:
  inspect(
    _FLAGS.shards_dir.value,
    _FLAGS.out.value,
    _FLAGS.split.value,
    _ROWS.value,
    _FLAGS.clips.value,
    _SEED.value,
  )
  print(f'Look at {pathlib.Path(_FLAGS.out.value, "report.html")}')


if __name__ == '__main__':
  _FLAGS = clip_flags.define('train', 1000, 'Clips in the statistics.')
  _ROWS = flags.DEFINE_integer('rows', 8, 'Clips in the contact sheet.', 1)
  _SEED = flags.DEFINE_integer('seed', 0, 'Seed of the choice of clips.')
  launch.run(main)
