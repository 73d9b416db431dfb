import numpy as np
import pytest

from drp_jax.viz import contact_sheet


def _clip(level):
  """Four frames of 20 x 100 pixels: frame t has the gray level + t."""
  frames = np.zeros((4, 20, 100, 3), np.uint8)
  return frames + (level + np.arange(4, dtype=np.uint8))[:, None, None, None]


def test_rows_are_clips_and_columns_are_times():
  sheet = contact_sheet.contact_sheet(
    [_clip(100), _clip(200)], ['one', 'two'], (1, 3)
  )
  assert sheet.dtype == np.uint8
  row = 18 + 20  # a title and the frames
  assert sheet.shape == (2 * row, 2 * 100 + 10, 3)
  for number, level in enumerate((100, 200)):
    frames = sheet[number * row + 18 : (number + 1) * row]
    assert (frames[:, :100] == level + 1).all()
    assert (frames[:, 110:] == level + 3).all()
    assert (frames[:, 100:110] == frames[0, 100]).all()  # the gap


def test_titles_are_written_above():
  def title(text):
    return contact_sheet.contact_sheet([_clip(0)], [text], (0,))[:18]

  assert title('').std() == 0 < title('a.mp4').std()
  assert not np.array_equal(title('a.mp4'), title('b.mp4'))
  assert title('über/' * 99).shape == (18, 100, 3)  # cut off, not wider


@pytest.mark.parametrize('titles', [(), ('one', 'two')])
def test_every_clip_has_a_title(titles):
  with pytest.raises(ValueError, match='one title for each clip'):
    contact_sheet.contact_sheet([_clip(0)], titles, (0,))
  with pytest.raises(ValueError, match='at least one clip'):
    contact_sheet.contact_sheet([], [], (0,))
