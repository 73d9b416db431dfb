"""Defines the flags of the commands that look at clips of shards."""

from typing import NamedTuple

from absl import flags

from drp_jax.data import clips as clips_lib

flags.disclaim_key_flags()  # --help shows them as those of the command


class ClipFlags(NamedTuple):
  """Holds the flags; read them with `.value` once they are parsed.

  Attributes:
    shards_dir: `--shards_dir`.
    split: `--split`.
    clips: `--clips`.
    out: `--out`.
  """

  shards_dir: flags.FlagHolder[str]
  split: flags.FlagHolder[str]
  clips: flags.FlagHolder[int]
  out: flags.FlagHolder[str]


def define(split: str, clips: int, what: str, least: int = 1) -> ClipFlags:
  """Defines the flags; `--shards_dir` and `--out` have to be given.

  Args:
    split: the default.
    clips: the default.
    what: help of `--clips`.
    least: smallest value of `--clips`.
  """
  found = ClipFlags(
    flags.DEFINE_string('shards_dir', None, 'Folder of shards.'),
    flags.DEFINE_enum('split', split, clips_lib.SPLITS, 'Split of the shards.'),
    flags.DEFINE_integer('clips', clips, what, least),
    flags.DEFINE_string('out', None, 'Folder to write to.'),
  )
  flags.mark_flags_as_required(['shards_dir', 'out'])
  return found
