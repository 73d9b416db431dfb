"""Writes tests/lerobot_sets, small data sets in each of LeRobot's formats.

Run it in an environment with LeRobot 0.3.3, which writes v2.1, and in one with
LeRobot 0.4.4, which writes v3.0:

  python tests/write_lerobot_sets.py --out=tests/lerobot_sets

Frame t of episode e is of one brightness, 40 + 60 e + 6 t, or 255 less that for
the second camera; `action` is [e, t]. So a reader that takes a frame of another
episode is found out, however lossy the codec is.
"""

import argparse
import pathlib
import shutil

import lerobot
import numpy as np
from lerobot.datasets import lerobot_dataset

LENGTHS = (7, 5, 6)
TASKS = ('push the block', 'lift the cup', 'push the block')
_SIZE = 64


def level(episode: int, t: int) -> int:
  return 40 + 60 * episode + 6 * t


def write(
  folder: pathlib.Path, dtype: str, codec: str = '', small_files: bool = False
) -> None:
  """Writes a data set whose cameras are of dtype 'video' or 'image'."""
  shutil.rmtree(folder, ignore_errors=True)
  camera = {
    'dtype': dtype,
    'shape': (_SIZE, _SIZE, 3),
    'names': ['height', 'width', 'channels'],
  }
  number = {'dtype': 'float32', 'shape': (2,), 'names': ['episode', 't']}
  data = lerobot_dataset.LeRobotDataset.create(
    'drp_jax/test',
    fps=10,
    features={
      'observation.images.top': camera,
      'observation.images.side': camera,
      'observation.state': number,
      'action': number,
    },
    root=folder,
    robot_type='squares',
    use_videos=dtype == 'video',
    **({'vcodec': codec} if codec else {}),
  )
  is_old = data.meta.info['codebase_version'].startswith('v2')
  if small_files:
    data.meta.update_chunk_settings(
      chunks_size=2, data_files_size_in_mb=1, video_files_size_in_mb=1e-4
    )
  for episode, length in enumerate(LENGTHS):
    for t in range(length):
      top = np.full((_SIZE, _SIZE, 3), level(episode, t), np.uint8)
      numbers = np.float32([episode, t])
      frame = {
        'observation.images.top': top,
        'observation.images.side': 255 - top,
        'observation.state': numbers,
        'action': numbers,
      }
      if is_old:
        data.add_frame(frame, task=TASKS[episode])
      else:
        data.add_frame({**frame, 'task': TASKS[episode]})
    data.save_episode()
  if not is_old:
    data.finalize()
  # What no reader of frames needs.
  shutil.rmtree(folder / 'images', ignore_errors=True)
  for path in folder.glob('meta/*stats.json*'):
    path.unlink()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', type=pathlib.Path, required=True)
  out = parser.parse_args().out
  if lerobot_dataset.CODEBASE_VERSION == 'v2.1':
    write(out / 'v2.1_av1', 'video')
    write(out / 'v2.1_image', 'image')
  else:
    for codec in ('libsvtav1', 'h264', 'hevc'):
      name = codec.removeprefix('libsvt')
      write(out / f'v3.0_{name}', 'video', codec)
    write(out / 'v3.0_files', 'video', 'h264', small_files=True)
    write(out / 'v3.0_image', 'image')
  print(f'LeRobot {lerobot.__version__} wrote {sorted(out.iterdir())}')


if __name__ == '__main__':
  main()
