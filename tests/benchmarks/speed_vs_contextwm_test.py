"""The pieces that are timed; the official code is not here."""

import jax
import pytest

from benchmarks import speed_vs_contextwm as speed


@pytest.mark.slow
@pytest.mark.parametrize('stage', speed.PIECES)
def test_our_side_has_every_piece(stage):
  with jax.debug_key_reuse(False):  # every call draws the same numbers
    pieces = speed.ours(stage, 'debug')
    assert tuple(pieces) == speed.PIECES[stage]
    for piece in pieces.values():
      piece()
      piece()  # what a step donated is not used again


def test_table_of_ratios_turn_by_turn():
  row = dict(
    stage='dmcr',
    preset='nano',
    piece='step',
    seconds=dict(ours=0.5, theirs=1.25),
    ratio=2.5,
    ratios=[2.0, 2.5, 3.0],
    peak_gib=dict(ours=1.26, theirs=0.5),
  )
  *_, line = speed.table([row]).splitlines()
  assert line == (
    '| dmcr, nano: step | 1.250 | 0.500 | 2.50 | 2.00 to 3.00 | 0.5, 1.3 |'
  )
