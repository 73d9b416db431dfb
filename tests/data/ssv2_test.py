"""Something-Something V2: annotations, and files in any container."""

import json
import os

import made_files
import pytest

from drp_jax.data import ssv2 as ssv2_lib


@pytest.fixture
def ssv2(tmp_path):
  """Files as distributed: (folder of videos, folder of annotations)."""
  videos = made_files.touch(
    tmp_path / 'videos', '7.webm', '12.webm', '3.webm', '99.webm'
  )
  notes = tmp_path / 'notes'
  notes.mkdir()
  push = 'Pushing [something] from left to right'
  cover = 'Covering [something] with [something]'
  train = [
    {'id': '7', 'label': 'pushing a cup from left to right', 'template': push},
    {'id': '12', 'label': 'covering a cup with a hat', 'template': cover},
    {'id': '4', 'label': 'pushing it from left to right', 'template': push},
  ]
  validation = [{'id': '3', 'label': '', 'template': cover}]
  labels = {
    'Covering something with something': '6',
    'Pushing something from left to right': '92',
  }
  for name, content in (
    ('train', train),
    ('validation', validation),
    ('labels', labels),
  ):
    path = notes / f'something-something-v2-{name}.json'
    path.write_text(json.dumps(content))
  return videos, notes


def test_ssv2_gives_labels_and_splits(ssv2):
  videos = ssv2_lib.ssv2_videos(*ssv2, ('train', 'validation')).videos
  assert [(v.source_id, v.label, v.split) for v in videos] == [
    ('12.webm', 6, 'train'),
    ('3.webm', 6, 'validation'),
    ('4.webm', 92, 'train'),  # not there; the build will say so
    ('7.webm', 92, 'train'),
  ]
  assert videos[0].path == ssv2[0] / '12.webm'
  train = ssv2_lib.ssv2_videos(*ssv2, ['train']).videos
  assert train == [videos[0], videos[2], videos[3]]


@pytest.mark.parametrize('splits', [('test',), ()])
def test_ssv2_has_two_splits_with_labels(ssv2, splits):
  with pytest.raises(ValueError, match='config.ssv2.splits=.* must be some of'):
    ssv2_lib.ssv2_videos(*ssv2, splits)


def test_what_is_missing_of_ssv2_is_named(ssv2):
  videos, notes = ssv2
  labels = notes / 'something-something-v2-labels.json'
  labels.write_text('{"Covering something with something": "6"}')
  with pytest.raises(ValueError, match="'Pushing something from left to right"):
    ssv2_lib.ssv2_videos(*ssv2, ('train',))
  labels.unlink()
  with pytest.raises(ValueError, match=r'ssv2.annotations=.*\*labels.json, no'):
    ssv2_lib.ssv2_videos(*ssv2, ('train',))
  with pytest.raises(ValueError, match='config.path=.*nowhere'):
    ssv2_lib.ssv2_videos(videos / 'nowhere', notes, ('train',))


def test_annotations_without_a_single_video_are_refused(ssv2):
  videos, notes = ssv2
  for path in videos.iterdir():
    path.unlink()
  with pytest.raises(ValueError, match='holds none of the 4 videos'):
    ssv2_lib.ssv2_videos(videos, notes, ('train', 'validation'))


def test_ssv2_links_and_what_is_no_file(ssv2, tmp_path):
  """What is there but cannot be read is listed, not read."""
  videos, notes = ssv2
  made_files.touch(tmp_path / 'far', 'a.webm')
  for name in ('7.webm', '12.webm'):
    (videos / name).unlink()
  made_files.link(videos, '7.webm', tmp_path / 'far/a.webm')
  made_files.link(videos, '12.webm', '7.webm')
  os.mkfifo(videos / '4.webm')
  listing = ssv2_lib.ssv2_videos(videos, notes, ('train', 'validation'))
  assert made_files.ids(listing.videos) == ['12.webm', '3.webm']
  assert listing.not_taken == {
    '4.webm': 'not_a_file: a named pipe (FIFO)',
    '7.webm': 'duplicate: the file is listed as 12.webm',
  }
  assert listing.ignored == {'.webm': 1}  # 99 has no annotation


def test_ssv2_in_other_containers(ssv2):
  """As people encode it anew; two containers of one video count once."""
  videos, notes = ssv2
  (videos / '7.webm').rename(videos / '7.mp4')
  (videos / '3.webm').rename(videos / '3.MKV')
  made_files.touch(videos, '12.avi', '12.mp4', '4.avi', '4.mp4', 'a/7.webm')
  made_files.touch(videos, '7.txt', '99.mp4')
  listing = ssv2_lib.ssv2_videos(videos, notes, ('train', 'validation'))
  assert [(v.source_id, v.label, v.split) for v in listing.videos] == [
    ('12.webm', 6, 'train'),
    ('3.MKV', 6, 'validation'),
    ('4.avi', 92, 'train'),
    ('7.mp4', 92, 'train'),
  ]
  for video in listing.videos:
    assert video.path == videos / video.source_id and video.path.is_file()
  assert listing.not_taken == {
    '12.avi': 'duplicate: the video is listed as 12.webm',
    '12.mp4': 'duplicate: the video is listed as 12.webm',
    '4.mp4': 'duplicate: the video is listed as 4.avi',
  }
  assert listing.ignored == {'.mp4': 1, '.txt': 1, '.webm': 2}


def test_a_video_that_is_annotated_twice_is_refused(ssv2):
  """Otherwise one of its labels would be lost."""
  videos, notes = ssv2
  path = notes / 'something-something-v2-train.json'
  entries = json.loads(path.read_text())
  path.write_text(json.dumps(entries + entries[:1]))
  with pytest.raises(ValueError, match='train.json: video 7 is listed twice'):
    ssv2_lib.ssv2_videos(videos, notes, ('train',))
