"""The pieces that are timed; the official code is not here."""

import time

import jax
import pytest

from benchmarks import servers
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


@pytest.mark.slow
def test_a_process_answers_pieces_and_the_peak(tmp_path):
  (tmp_path / 'wmlib').mkdir()  # which our side does not read
  server = speed._server('ours', 'pretrain', 'debug', str(tmp_path), 2)
  try:
    assert server.answer(time.monotonic() + 600) is None
    assert server.ask('decoder', time.monotonic() + 600) > 0
    assert server.ask('peak', time.monotonic() + 600) > 0.1
    with pytest.raises(servers.Failure, match="KeyError: 'reward'"):
      server.ask('reward', time.monotonic() + 600)
  finally:
    server.close()


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
