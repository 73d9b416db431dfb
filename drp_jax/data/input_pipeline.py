"""Batches of clips for pre-training, with a position that can be saved.

grain runs in threads of this process only. Its state is then one index, valid
for any number of threads, and a killed run leaves no worker process behind.
"""

import os

import numpy as np

from drp_jax import extras
from drp_jax.data import schema, shards

with extras.brings('data', __name__):
  import grain

_NUM_THREADS = 4  # more were not faster on two cores, bound by decompression
_PREFETCH = 64  # clips, at most 40 MB

Batch = dict[str, np.ndarray]


def make_iterator(
  shards_dir: str | os.PathLike,
  split: str,
  clip_length: int,
  batch_size: int,
  num_keypoints: int | None,
  seed: int,
  host: int = 0,
  num_hosts: int = 1,
) -> grain.DatasetIterator:
  """Iterates endlessly over the shuffled clips of a split.

  Every clip comes once per pass, in an order that differs between passes. Every
  host reads its part of every batch, B / num_hosts consecutive clips. Together
  the parts are the batch that a single host would read. A run therefore
  computes the same numbers on any number of hosts and may resume with another.

  Args:
    shards_dir: folder that `shards.write_shards` has finished.
    split: 'train' or 'validation'.
    clip_length: T, frames that every clip must have.
    batch_size: B, clips over all hosts.
    num_keypoints: K <= Kmax. Keypoints are stored in random order, so the first
      K are a fair sample. None leaves out all motion.
    seed: seed of the order.
    host: number of this host, in 0..num_hosts-1.
    num_hosts: hosts that share the batch; divides `batch_size`.

  Returns:
    An iterator over dicts of this host's B / num_hosts clips: `image`
    [b, T, 64, 64, 3] uint8 and, unless K is None, `flow` [b, T, 64, 64, 2]
    float16, `points` [b, T, K, 2] float32, `visible` [b, T, K] bool. Its
    `get_state()` is a small dict of JSON values; `set_state` resumes exactly
    there.

  Raises:
    ValueError: if a number is not allowed, or as `shards.open_split`.
  """
  if batch_size < 1 or batch_size % num_hosts:
    raise ValueError(
      f'config.data.batch_size={batch_size} must be a positive multiple of '
      f'the number of hosts, {num_hosts}.'
    )
  clips = _shuffled(shards_dir, split, clip_length, num_keypoints, seed)
  if len(clips) < batch_size:
    raise ValueError(
      f'Split {split!r} of {os.fspath(shards_dir)!r} holds {len(clips)} '
      f'clips, fewer than config.data.batch_size={batch_size}.'
    )
  dataset = clips.repeat().batch(batch_size // num_hosts, drop_remainder=True)
  options = grain.ReadOptions(
    num_threads=_NUM_THREADS,
    prefetch_buffer_size=max(1, _PREFETCH * num_hosts // batch_size),
  )
  return iter(dataset[host::num_hosts].to_iter_dataset(options))


def sample(
  shards_dir: str | os.PathLike,
  split: str,
  clip_length: int,
  batch_size: int,
  num_batches: int,
  num_keypoints: int | None,
  seed: int,
) -> list[Batch]:
  """Reads the first clips that `make_iterator` gives a single host, each once.

  Args:
    shards_dir: as in `make_iterator`.
    split: 'train' or 'validation'.
    clip_length: T.
    batch_size: B, clips.
    num_batches: maximum number of batches.
    num_keypoints: K, or None.
    seed: seed of the order.

  Returns:
    Batches of B clips. If the split holds fewer clips than requested, there are
    fewer batches, and the last one may be smaller.

  Raises:
    ValueError: as `make_iterator`, except for a split smaller than a batch.
  """
  clips = _shuffled(shards_dir, split, clip_length, num_keypoints, seed)
  count = min(num_batches * batch_size, len(clips))
  return list(clips[:count].batch(batch_size, drop_remainder=False))


def _shuffled(
  shards_dir: str | os.PathLike,
  split: str,
  clip_length: int,
  num_keypoints: int | None,
  seed: int,
) -> grain.MapDataset:
  """Shuffles the clips of a split, and selects the fields of a batch."""
  K = num_keypoints
  if K is not None and not 1 <= K <= schema.MAX_KEYPOINTS:
    raise ValueError(
      f'config.dae.num_keypoints={K} must be in '
      f'[1, {schema.MAX_KEYPOINTS}], what the shards hold.'
    )

  def select(example) -> Batch:
    if K is None:
      return {'image': example['image']}
    return {
      'image': example['image'],
      'flow': example['flow'],
      'points': example['points'][:, :K],
      'visible': example['visible'][:, :K],
    }

  source = shards.open_split(shards_dir, split, clip_length)
  return grain.MapDataset.source(source).seed(seed).shuffle().map(select)
