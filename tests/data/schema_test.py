"""The contract's words when it is broken, and slices of footage."""

import numpy as np
import pytest

from drp_jax import recordings
from drp_jax.data import schema

_FIELDS = {
  'image': schema.Field((2, 3), np.dtype(np.uint8)),
  'reward': schema.Field((), np.dtype(np.float32)),
}


def _arrays(**changes):
  good = {'image': np.zeros((2, 3), np.uint8), 'reward': np.float32(1)}
  return {**good, **changes}


def _zeros(fields, **changes):
  arrays = {n: np.zeros(f.shape, f.dtype) for n, f in fields.items()}
  return {**arrays, **changes}


def test_what_matches_passes_and_more_than_that_too():
  schema.check(_arrays(), _FIELDS, 'here')
  schema.check(_arrays(label=np.int64(3)), _FIELDS, 'here')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      dict(image=np.zeros((3, 2), np.uint8)),
      "here: field 'image' is uint8[3, 2], expected uint8[2, 3].",
    ),
    (
      dict(image=np.zeros((1, 2, 3), np.uint8)),
      "here: field 'image' is uint8[1, 2, 3], expected uint8[2, 3].",
    ),
    (
      dict(image=np.zeros((2, 3), np.int8)),
      "here: field 'image' is int8[2, 3], expected uint8[2, 3].",
    ),
    (  # A plain number of Python is not taken for a float32.
      dict(reward=1.0),
      "here: field 'reward' is float64[], expected float32[].",
    ),
  ],
  ids=['shape', 'rank', 'dtype', 'python number'],
)
def test_what_does_not_match_is_named(changes, message):
  with pytest.raises(ValueError) as error:
    schema.check(_arrays(**changes), _FIELDS, 'here')
  assert str(error.value) == message


def test_all_missing_fields_are_named_at_once():
  with pytest.raises(ValueError) as error:
    schema.check({'label': np.int64(3)}, _FIELDS, 'there')
  assert str(error.value) == (
    "there: field(s) ['image', 'reward'] are missing."
  )


def test_a_clip_has_one_mask_and_an_entry_per_frame_of_all_else():
  """T runs through all fields but the mask; Kmax keypoints, whatever K."""
  fields = schema.clip_fields(5)
  first_axis = {name: field.shape[0] for name, field in fields.items()}
  mask = first_axis.pop('mask')
  assert set(first_axis.values()) == {5} and mask == 64
  schema.check(_zeros(fields), fields, 'clip')
  fewer = _zeros(fields, points=np.zeros((5, 16, 2), np.float32))
  with pytest.raises(ValueError, match=r"'points' is float32\[5, 16, 2\]"):
    schema.check(fewer, fields, 'clip')
  longer = schema.clip_fields(6)
  with pytest.raises(ValueError, match=r"'image' is uint8\[5, .*\[6, "):
    schema.check(_zeros(fields), longer, 'clip')


def test_recorded_fields_are_as_wide_as_their_body():
  fields = schema.recorded_fields(5)
  for width in (0, 1, 21):
    arrays = {n: np.zeros((5, width), np.float32) for n in fields}
    schema.check(arrays, fields, 'clip')
  message = r"'action' is float32\[{}\], expected float32\[5, None\]"
  for shape, text in (((4, 2), '4, 2'), ((5,), '5'), ((5, 2, 1), '5, 2, 1')):
    arrays['action'] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=message.format(text)):
      schema.check(arrays, fields, 'clip')


def test_a_replay_step_has_the_sizes_of_its_run():
  fields = schema.replay_fields(num_keypoints=7, action_size=3)
  good = _zeros(fields)
  schema.check(good, fields, 'step')
  assert good['points'].shape == (7, 2) and good['visible'].shape == (7,)
  assert good['action'].shape == (3,)
  with pytest.raises(ValueError, match=r"'action' is float32\[3\], .*\[4\]"):
    schema.check(good, schema.replay_fields(7, 4), 'step')


def test_steps_of_a_system_that_sees_no_motion():
  """All that is left are images, actions, rewards and flags."""
  fields = schema.replay_fields(None, 3)
  motion = {'flow', 'points', 'visible', 'window_step'}
  full = schema.replay_fields(4, 3)
  assert full.keys() - fields.keys() == motion
  assert fields == {n: f for n, f in full.items() if n not in motion}


def _footage():
  image = np.arange(6 * 2 * 2 * 3, dtype=np.uint8).reshape(6, 2, 2, 3)
  scene = {'time': np.arange(6) * 0.5, 'pose': np.arange(12).reshape(6, 2)}
  return schema.Footage(image, scene)


@pytest.mark.parametrize(
  ('frames', 'kept'),
  [
    (slice(2, 5), [2, 3, 4]),
    (slice(None, -1), [0, 1, 2, 3, 4]),
    (slice(None, None, 2), [0, 2, 4]),
    ([5, 0, 5], [5, 0, 5]),
    (slice(4, 9), [4, 5]),
  ],
)
def test_the_scene_is_sliced_with_its_frames(frames, kept):
  whole, part = _footage(), _footage()[frames]
  assert len(part) == len(kept)
  for index, frame in enumerate(kept):
    np.testing.assert_array_equal(part.image[index], whole.image[frame])
    assert part.scene['time'][index] == frame * 0.5
    np.testing.assert_array_equal(
      part.scene['pose'][index], [2 * frame, 2 * frame + 1]
    )
  assert part.scene.keys() == whole.scene.keys()


def test_the_recording_is_sliced_with_its_frames():
  action = np.arange(6, dtype=np.float32)[:, None]
  recording = recordings.Recording(action, 2 * action, 'arm')
  part = schema.Footage(_footage().image, recording=recording)[1:][1:4]
  assert part.recording.action[:, 0].tolist() == [2, 3, 4]
  assert part.recording.joint_velocity[:, 0].tolist() == [4, 6, 8]
  assert _footage()[2:].recording is None


def test_slices_of_slices_and_footage_without_a_scene():
  twice = _footage()[1:][2:4]
  np.testing.assert_array_equal(twice.scene['time'], [1.5, 2.0])
  bare = schema.Footage(_footage().image)
  assert bare[2:4].scene is None and len(bare[2:4]) == 2
  assert len(_footage()[6:]) == 0
