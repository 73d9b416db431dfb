"""What lies beside videos: read as it was written, or refused by name."""

import io

import numpy as np
import pytest

from drp_jax import recordings


def _recording(num_frames=6):
  action = np.arange(2 * num_frames, dtype=np.float32).reshape(-1, 2)
  return recordings.Recording(action, 10 * action[:, :1], 'arm')


def _assert_same(one, other):
  np.testing.assert_array_equal(one.action, other.action)
  np.testing.assert_array_equal(one.joint_velocity, other.joint_velocity)
  assert one.action.dtype == one.joint_velocity.dtype == np.float32
  assert one.body == other.body


@pytest.mark.parametrize('name', ['a.mp4', 'v.1', 'ä b.webm'])
def test_what_is_written_is_read(tmp_path, name):
  """Of files and of folders of pictures, whatever the name."""
  recordings.write(tmp_path / name, _recording())
  assert [p.name for p in tmp_path.iterdir()] == [f'{name}.actions.npz']
  _assert_same(recordings.read(tmp_path / name), _recording())


def test_two_videos_of_one_stem_have_a_recording_each(tmp_path):
  recordings.write(tmp_path / 'a.mp4', _recording())
  assert recordings.read(tmp_path / 'a.webm') is None


def test_of_a_link(tmp_path):
  (tmp_path / 'there').mkdir()
  (tmp_path / 'there' / 'a.mp4').touch()
  (tmp_path / 'b.mp4').symlink_to(tmp_path / 'there' / 'a.mp4')
  assert recordings.read(tmp_path / 'b.mp4') is None
  recordings.write(tmp_path / 'there' / 'a.mp4', _recording())
  _assert_same(recordings.read(tmp_path / 'b.mp4'), _recording())
  recordings.write(tmp_path / 'b.mp4', _recording(4))
  _assert_same(recordings.read(tmp_path / 'b.mp4'), _recording(4))


def test_a_name_that_leaves_no_room_has_none(tmp_path):
  path = tmp_path / ('a' * 251 + '.mp4')
  path.touch()
  assert recordings.read(path) is None


def test_an_entry_spans_the_frames_left_out_before_it():
  found = _recording().between([1, 2, 5])
  # Entries 0 and 1; 2; 3, 4 and 5.
  assert found.action.tolist() == [[1.0, 2.0], [4.0, 5.0], [8.0, 9.0]]
  assert found.joint_velocity.tolist() == [[10.0], [40.0], [80.0]]
  assert found.body == 'arm' and found.action.dtype == np.float32


def test_all_frames_keep_their_entries_to_the_bit():
  rng = np.random.default_rng(0)
  whole = recordings.Recording(
    rng.normal(size=(9, 3)).astype(np.float32), np.zeros((9, 0), np.float32)
  )
  _assert_same(whole.between(range(9)), whole)
  _assert_same(whole.between(range(5)), whole[:5])


def test_slices():
  part = _recording()[2:4]
  assert len(part) == 2 and part.body == 'arm'
  assert part.action.tolist() == [[4.0, 5.0], [6.0, 7.0]]
  assert part.joint_velocity.tolist() == [[40.0], [60.0]]
  none = recordings.nothing(5)[1:]
  assert none.action.shape == none.joint_velocity.shape == (4, 0)


def _npz(**arrays):
  content = io.BytesIO()
  np.savez(content, **arrays)
  return content.getvalue()


def test_one_kind_of_numbers_is_enough(tmp_path):
  path = tmp_path / 'a.mp4.actions.npz'
  path.write_bytes(_npz(action=np.arange(4)[:, None]))
  found = recordings.read(tmp_path / 'a.mp4')
  assert found.action.tolist() == [[0.0], [1.0], [2.0], [3.0]]
  assert found.action.dtype == np.float32 and found.body == ''
  assert found.joint_velocity.shape == (4, 0)


_GOOD = np.zeros((4, 2))


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'no archive', 'is damaged'),
    (_npz(action=_GOOD)[:-30], 'is damaged'),
    (_npz(action=np.array([[{}]])), 'is damaged'),  # would run code
    (_npz(actions=_GOOD), r"holds \['actions'\], none of \['action', 'joint_v"),
    (_npz(action=_GOOD[0]), r'action is float64\[2\], expected numbers'),
    (_npz(joint_velocity=_GOOD > 0), r'joint_velocity is bool\[4, 2\], exp'),
    (
      _npz(action=np.full((4, 2), np.nan)),
      'action has numbers that are not finite',
    ),
    (
      _npz(action=_GOOD, joint_velocity=_GOOD[1:]),
      "differ in number, {'action': 4, 'joint_velocity': 3}",
    ),
    (_npz(action=_GOOD, body=np.array(3)), 'body is int64, expected a text'),
  ],
)
def test_what_cannot_be_used_is_named(tmp_path, content, message):
  (tmp_path / 'a.mp4.actions.npz').write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    recordings.read(tmp_path / 'a.mp4')
  assert str(error.value).startswith('a.mp4.actions.npz')


def test_an_action_that_is_taken_at_a_frame_led_to_the_next():
  taken = np.arange(6).reshape(3, 2)
  recording = recordings.of_actions_taken(taken, 'arm')
  np.testing.assert_array_equal(recording.action, [[0, 0], [0, 1], [2, 3]])
  assert recording.action.dtype == np.float32 and recording.body == 'arm'
  assert recording.joint_velocity.shape == (3, 0)


@pytest.mark.parametrize(
  ('actions', 'message'),
  [
    (np.zeros(3), r'actions are float64\[3\], expected numbers \[frames'),
    (np.zeros((0, 3)), r'actions are float64\[0, 3\]'),
    (np.full((2, 2), 'a'), r'actions are <U1\[2, 2\]'),
    (np.full((2, 2), np.nan), 'actions have numbers that are not finite'),
  ],
  ids=str,
)
def test_what_are_no_actions_is_refused(actions, message):
  with pytest.raises(ValueError, match=message):
    recordings.of_actions_taken(actions)
