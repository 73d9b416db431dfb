"""Numbers by hand: what moves, errors of videos and bodies, intervals, bars."""

import numpy as np
import pytest

from experiments import prediction_scores as scores

_BODIES = r'robots/(ball_in_cup|humanoid_CMU|[^_]+)_|^(arms|pushes)/|(real/\w+)'


def test_a_pixel_moves_if_its_flow_is_longer_than_half_a_pixel():
  flow = np.zeros([1, 2, 3, 2], np.float16)
  flow[0, 0] = [[0.3, 0.4], [0.5, 0], [0, -0.5]]  # exactly half: still
  flow[0, 1] = [[0.3, 0.41], [-0.51, 0], [0.4, 0.4]]
  found = scores.masks(flow)
  assert tuple(found) == scores.PIXELS
  np.testing.assert_array_equal(found['moving'][0], [3 * [False], 3 * [True]])
  np.testing.assert_array_equal(found['still'], ~found['moving'])
  assert found['all'].all() and found['all'].shape == (1, 2, 3)


def test_squared_errors_are_summed_over_the_pixels_chosen():
  true = np.full([2, 1, 2, 2, 3], 200, np.uint8)
  frames = true.copy()
  frames[0, 0, 0, 0] = [251, 200, 200]  # .2 of one channel
  frames[0, 0, 1, 1] = 98  # -.4 of all
  chosen = {
    'all': np.ones([2, 1, 2, 2], bool),
    'one': np.zeros([2, 1, 2, 2], bool),
  }
  chosen['one'][:, 0, 0, 0] = True
  found = scores.squared_errors(true, frames, chosen)
  np.testing.assert_allclose(found['all'], [0.04 / 3 + 0.16, 0], rtol=1e-6)
  np.testing.assert_allclose(found['one'], [0.04 / 3, 0], rtol=1e-6)


def test_clips_of_a_video_are_joined_by_pixels():
  videos = np.array(['b', 'a', 'b', 'c'])
  found = scores.by_video(
    np.array([3.0, 5.0, 1.0, 0.0]), np.array([1, 10, 3, 0]), videos
  )
  np.testing.assert_array_equal(found, [0.5, 1.0, np.nan])


@pytest.mark.parametrize(
  ('source_id', 'by_default', 'by_pattern'),
  [
    ('robots/hopper_hop_0003.mp4', 'robots/hopper_hop', 'hopper'),
    ('robots/stacker_stack_2_0014.mp4', 'robots/stacker_stack_2', 'stacker'),
    ('robots/ball_in_cup_catch_0.mp4', 'robots/ball_in_cup_catch',
     'ball_in_cup'),
    ('robots/humanoid_CMU_run_0018.mp4', 'robots/humanoid_CMU_run',
     'humanoid_CMU'),
    ('robots/humanoid_run_0018.mp4', 'robots/humanoid_run', 'humanoid'),
    ('arms/metaworld_pick-place_0007.mp4', 'arms/metaworld_pick-place',
     'arms'),
    ('pushes/pushing_right_to_left/0045.mp4', 'pushes/pushing_right_to_left',
     'pushes'),
    ('real/bikes.mp4', 'real/bikes', 'real/bikes'),
  ],
)  # fmt: skip
def test_bodies_of_source_ids(source_id, by_default, by_pattern):
  assert scores.body_of(source_id, scores.BODY) == by_default
  assert scores.body_of(source_id, _BODIES) == by_pattern


def test_names_that_are_numbers_are_one_body():
  names = ['12.webm', '7.webm', '113']  # Something-Something V2, a folder
  assert {scores.body_of(n, scores.BODY) for n in names} == {'videos'}


@pytest.mark.parametrize('pattern', ['robots/(.*)', 'arms/.*', '(arms'])
def test_a_pattern_that_names_no_body_raises(pattern):
  with pytest.raises(ValueError, match='--body='):
    scores.body_of('arms/a.mp4', pattern)


def test_reduction_of_two_videos():
  """Their four draws have means 1, 2, 2 and 3 of 4."""
  found = scores.reduction(np.array([1.0, 3.0]), np.array([4.0, 4.0]))
  assert found == {'value': 0.5, 'low': 0.25, 'high': 0.75}


def test_a_video_is_drawn_with_both_of_its_errors():
  """So what is half of the other in every video is so for certain."""
  other = np.array([1.0, 2.0, 40.0])
  found = scores.reduction(other / 2, other)
  np.testing.assert_allclose(list(found.values()), 0.5)


def test_videos_without_such_pixels_are_left_out():
  found = scores.reduction(np.array([1.0, np.nan]), np.array([2.0, np.nan]))
  assert found == {'value': 0.5, 'low': 0.5, 'high': 0.5}


def _errors(moving, copied, whole, copied_whole, **controls):
  """Of videos; controls are errors of moving pixels."""

  def both(moving, whole):
    moving, whole = np.array(moving, float), np.array(whole, float)
    return {'all': whole, 'moving': moving, 'still': whole}

  return {
    scores.COPY: both(copied, copied_whole),
    scores.PREDICTION: both(moving, whole),
    **{name: both(values, whole) for name, values in controls.items()},
  }


def test_bars_by_hand():
  bodies = np.array(['dog', 'dog', 'fish', 'arm', 'rock'])
  errors = _errors(
    [1, 3, 5, 1, np.nan],  # dog 2, fish 5, arm 1
    [4, 2, 4, 2, np.nan],  # dog 3, fish 4, arm 2
    [1, 1, 1, 9, 1],
    [2, 2, 1, 1, 1],
    **{scores.OTHER: [2, 4, 5, 1, np.nan], scores.STILL: [1, 3, 5, 2, np.nan]},
  )
  found = scores.bars(errors, bodies, ['dog', 'fish'])
  below, every, whole, following, *controls = found
  np.testing.assert_allclose(below['value'], 1 - 10 / 12)
  assert not below['passed'] and below['low'] < below['value'] < below['high']
  assert every['passed'] and every['bodies'] == ['fish'] and every['of'] == 3
  np.testing.assert_allclose(whole['value'], 1 - 13 / 7)
  assert not whole['passed']
  assert not following['passed']  # the fish is no better than its copy
  assert following['bodies'] == ['fish'] and following['of'] == 2
  values = [bar['value'] for bar in controls]
  np.testing.assert_allclose(values, [1 - 10 / 12, 0, 1 - 10 / 11, 0])
  assert [bar['passed'] for bar in controls] == [True, False, False, False]


def test_two_bodies_that_are_not_below_copying_are_too_many():
  errors = _errors([1, 1, 1], [2, 1, 0.5], [0, 0, 0], [1, 1, 1])
  found = scores.bars(errors, np.array(['a', 'b', 'c']), [])
  assert len(found) == 3  # no body is followed, nothing drives predictions
  assert not found[1]['passed'] and found[1]['bodies'] == ['b', 'c']
  assert found[2]['passed']


def test_a_reduction_of_exactly_what_is_asked_passes():
  errors = _errors([3.0], [4.0], [1.0], [1.0])
  below, _, whole = scores.bars(errors, np.array(['a']), [])
  assert below['passed'] and below['value'] == scores.BELOW_COPYING
  assert not whole['passed'] and whole['value'] == 0


def test_markdown_says_it_all():
  errors = _errors(
    [0.01, 0.03, np.nan], [0.02, 0.06, np.nan], [0.01, 0.1, 2], [1, 1, 1]
  )
  bodies = np.array(['a', 'a', 'b'])
  measured = scores.bars(errors, bodies, ['a', 'b'])
  text = scores.markdown(
    'DRP',
    errors,
    bodies,
    np.array([0.1, 0.3, 0.0]),
    measured,
    {'all': 0.001, 'moving': 0.0002},
  )
  lines = text.splitlines()
  assert lines[0] == '## DRP'
  assert f'| {scores.COPY} | {scores.PREDICTION} |' in text
  assert '| a | 2 | 20% | 1.0000 / .0400 | .0550 / .0200 |' in lines
  assert '| b | 1 | 0% | 1.0000 / - | 2.0000 / - |' in lines
  for row in (
    '| **mean of videos** | 3 | 13% | 1.0000 / .0400 | .7033 / .0200 |',
    '| mean of bodies | 3 | 10% | 1.0000 / .0400 | 1.0275 / .0200 |',
  ):
    assert row in lines
  assert sum(line.startswith('- pass: ') for line in lines) == 3
  assert '- **fail**: ' in text and ': 1 of 2 are not, b' in text
  assert ': 50.0% (95 %: 50.0% to 50.0%)' in text
  assert '0.00100 (all), 0.00020 (moving)' in text
