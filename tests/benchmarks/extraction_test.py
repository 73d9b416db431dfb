"""Each stage does what it is named after, on real files; rates are positive."""

import itertools
import time
import types

import pytest
import random_inputs

from benchmarks import extraction
from configs import extract as extract_config
from drp_jax.data import folders
from drp_jax.preprocess import video


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  for seed, length in enumerate((60, 30)):
    frames = random_inputs.moving_squares(length, seed)
    video.write_video(folder / f'{seed}.mp4', frames, 25)
  return str(folder)


@pytest.fixture(scope='module')
def settings():
  return extract_config.get_config().to_dict()


def test_back_ends_without_weights_are_measured(settings):
  assert extraction.stages(settings) == [
    ('decode', 'PyAV'),
    ('flow', 'dis'),
    ('flow', 'farneback'),
    ('mask', 'motion_colour'),
    ('tracker', 'farneback'),
    ('write', 'ArrayRecord'),
    ('all', 'defaults'),
  ]


def test_learned_ones_are_measured_once_their_paths_are_set(settings):
  changed = extract_config.get_config()
  changed.sea_raft.weights = 'sea_raft.pth'
  changed.tapir.weights = 'tapir.pt'  # but no checkout
  new = set(extraction.stages(changed.to_dict()))
  assert new - set(extraction.stages(settings)) == {('flow', 'sea_raft')}


def test_every_stage_can_be_measured(settings, folder):
  for stage, name in extraction.stages(settings):
    found = extraction.measure(stage, name, settings, folder, 0.0)
    assert found['clips'] == 1, stage
    assert 0 < found['cpu'] and 0 < found['wall'], stage


def test_a_measurement_lasts_as_long_as_asked(settings, folder, monkeypatch):
  """By a clock of which every look takes a second."""
  ticks = itertools.count()
  clock = types.SimpleNamespace(
    perf_counter=lambda: next(ticks), process_time=time.process_time
  )
  monkeypatch.setattr(extraction, 'time', clock)
  found = extraction.measure('decode', 'PyAV', settings, folder, 3.0)
  assert found['clips'] == 3 and found['wall'] == 4


def test_clips_are_whole_and_of_all_videos(folder):
  paths = [v.path for v in folders.folder_videos(folder).videos]
  found = extraction._footage(paths)
  assert [len(clip) for clip in found] == [25, 25, 25]
  assert not (found[0].image == found[1].image).all()  # of two videos


def test_a_process_of_its_own_measures_the_same(settings, folder):
  arguments = ('decode', 'PyAV', settings, folder, 0.2)
  found = extraction.together(1, arguments)
  assert found['per_second'] > 0 and found['per_cpu_second'] > 0
  row = {'stage': 'decode', 'backend': 'PyAV', 'one': found, 'several': found}
  line = extraction.table([row]).splitlines()[-1]
  assert line.startswith('| decode | PyAV | ') and line.count('|') == 6
