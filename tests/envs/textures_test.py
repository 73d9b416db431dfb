"""Tests of the texture sets."""

import os

import numpy as np
import pytest
from PIL import Image

from drp_jax.envs import textures


def save(path, color, size=(10, 10)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', size, color).save(path)


def test_embedded_set():
  loaded = textures.load(32)
  for images in (loaded.skies, loaded.floors):
    assert images.dtype == np.uint8 and images.shape[1:] == (32, 32, 3)
    assert len(images) > 80
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(
      images
    )
  assert textures.load(32) is loaded


def test_procedural_skies_depend_on_their_index_only():
  sky = textures.procedural_sky(3, 48)
  np.testing.assert_array_equal(sky, textures.procedural_sky(3, 48))
  assert (sky != textures.procedural_sky(4, 48)).any()


def test_folder_is_read_in_sorted_order(tmp_path):
  save(tmp_path / 'skies' / 'b.png', (0, 0, 255))
  save(tmp_path / 'skies' / 'a' / 'z.jpg', (255, 0, 0), (30, 20))
  save(tmp_path / 'floors' / 'f.PNG', (0, 255, 0))
  (tmp_path / 'skies' / 'notes.txt').write_text('not an image')
  loaded = textures.load(16, str(tmp_path))
  assert loaded.skies.shape == (2, 16, 16, 3)
  assert loaded.floors.shape == (1, 16, 16, 3)
  assert loaded.skies[0, 0, 0, 0] > 200  # a/z.jpg, red
  np.testing.assert_array_equal(loaded.skies[1, 0, 0], [0, 0, 255])


def test_folder_without_floors_is_named(tmp_path):
  save(tmp_path / 'skies' / 'a.png', (0, 0, 0))
  with pytest.raises(ValueError, match=r'texture_folder.*floors/'):
    textures.load(16, str(tmp_path))


@pytest.mark.parametrize('kind', ['skies', 'floors'])
@pytest.mark.parametrize('damage', ['text', 'empty', 'cut', 'link', 'pipe'])
def test_an_image_that_cannot_be_read_is_named(tmp_path, kind, damage):
  """Left out, it would change what every seed looks like."""
  for name in ('skies/a.png', 'skies/c.png', 'floors/a.png', 'floors/c.png'):
    save(tmp_path / name, (255, 0, 0), (64, 64))
  bad = tmp_path / kind / 'b.png'
  whole = (tmp_path / 'skies' / 'a.png').read_bytes()
  match damage:
    case 'text':
      bad.write_text('no image')
    case 'empty':
      bad.touch()
    case 'cut':
      bad.write_bytes(whole[: len(whole) // 2])
    case 'link':
      bad.symlink_to(tmp_path / 'nowhere')
    case 'pipe':
      os.mkfifo(bad)
  with pytest.raises(
    ValueError, match=rf'texture_folder: .*{kind}/b\.png. cannot be read as an'
  ):
    textures.load(16, str(tmp_path))
  bad.unlink()
  bad.mkdir()  # a folder may be called as it likes
  assert len(textures.load(8, str(tmp_path)).skies) == 2
