import cv2
import numpy as np
import pytest
from matplotlib import colors

from drp_jax.viz import overlay


def _clip(T=5, K=3, P=4, S=16):
  rng = np.random.default_rng(0)
  flow = rng.normal(size=[T, S, S, 2]).astype(np.float16)
  flow[0] = 0
  points = rng.uniform(2, S - 3, [T, K, 2]).astype(np.float32)
  return dict(
    image=rng.integers(0, 255, [T, S, S, 3], dtype=np.uint8),
    flow=flow,
    points=points,
    visible=np.ones([T, K], bool),
    mask=rng.random([S, S]) > 0.5,
    patches=rng.normal(size=[T, K, P, P, 2]).astype(np.float32),
  )


def test_four_panels_side_by_side():
  clip = _clip()
  panels = overlay.clip_panels(**clip, scale=4)
  assert panels.dtype == np.uint8
  assert panels.shape == (5, 64, 4 * 64 + 3 * 4, 3)
  np.testing.assert_array_equal(
    panels[:, :, :64], overlay.upscale(clip['image'], 4)
  )


@pytest.mark.parametrize('name', ['flow', 'points', 'visible', 'patches'])
def test_arrays_that_disagree_are_named(name):
  clip = _clip()
  clip[name] = clip[name][:-1]
  with pytest.raises(ValueError, match=f'{name} has shape'):
    overlay.clip_panels(**clip)


def test_flow_hue_is_direction_and_saturation_speed():
  flow = np.array([[0, 0], [2, 0], [-2, 0], [0, 2], [0, -2], [1, 0], [9, 0]])
  rest, right, left, down, up, slow, fast = overlay.flow_colors(flow, 2.0)
  assert tuple(rest) == (255, 255, 255)
  assert tuple(right) == (255, 0, 0)
  assert tuple(left) == (0, 255, 255)
  hues = colors.rgb_to_hsv(np.stack([right, down, left, up]) / 255)[:, 0]
  np.testing.assert_allclose(hues, [0, 0.25, 0.5, 0.75], atol=0.01)
  np.testing.assert_allclose(slow, [255, 128, 128], atol=1)
  assert tuple(fast) == tuple(right)  # clipped


def test_a_still_clip_stays_pale():
  noise = np.full([3, 8, 8, 2], 0.05, np.float16)
  top = overlay.top_speed(noise)
  assert top == 0.5
  assert overlay.flow_colors(noise, top).min() > 200


def test_points_in_frames_carries_the_last_on():
  flow = np.zeros([3, 8, 8, 2], np.float16)
  flow[2, :, :, 0] = np.arange(8)  # x motion grows with x
  points = np.zeros([3, 1, 2], np.float32)
  points[1], points[2] = (1, 2), (2.5, 2)
  visible = np.array([[False], [True], [False]])
  positions, alive = overlay.points_in_frames(points, visible, flow)
  # frame 0: points[1]; frame 1: points[2]; frame 2: 2.5 + bilinear 2.5.
  np.testing.assert_allclose(
    positions[:, 0], [[1, 2], [2.5, 2], [5, 2]], atol=0.1
  )
  assert alive[:, 0].tolist() == [True, False, False]


def test_a_track_is_drawn_where_the_point_is():
  scale = 8
  frames = np.zeros([3, 64, 64, 3], np.uint8)
  positions = np.array([[[1, 4]], [[3, 4]], [[5, 4]]], np.float32)
  drawn = overlay.draw_tracks(frames, positions, np.ones([3, 1], bool), scale)
  # (x + 0.5) * 8 - 0.5: x = 1, 3, 5 -> 11.5, 27.5, 43.5; y = 4 -> 35.5.
  for t, center in enumerate([11.5, 27.5, 43.5]):
    ys, xs = np.nonzero(drawn[t].sum(-1))
    near = np.abs(xs - center) < 5
    assert abs(xs[near].mean() - center) < 1.0 and abs(ys.mean() - 35.5) < 0.6
    assert xs.max() <= center + 5  # nothing ahead of the point
  assert not drawn[0, :, 17:].any()  # no tail yet
  old, new = drawn[2, 35, 19].sum(), drawn[2, 35, 34].sum()
  assert 0 < old < new  # the tail fades


def test_lost_points_are_rings_without_tails():
  frames = np.zeros([2, 64, 64, 3], np.uint8)
  positions = np.array([[[1, 4]], [[5, 4]]], np.float32)
  alive = np.array([[True], [False]])
  drawn = overlay.draw_tracks(frames, positions, alive, 8)
  assert drawn[1, 35, 40:48].any()
  assert not drawn[1, 35, 43].any()  # hollow
  assert not drawn[1, :, :38].any()  # no tail


def test_the_mask_is_filled_in_frame_0_only():
  frames = np.full([2, 32, 32, 3], 100, np.uint8)
  mask = np.zeros([8, 8], bool)
  mask[2:6, 2:6] = True
  drawn = overlay.draw_mask(frames, mask, 4)
  assert (drawn[0, 16, 16] != 100).any() and (drawn[1, 16, 16] == 100).all()
  for t in range(2):
    red, _, blue = drawn[t, 8, 16].tolist()  # the outline: amber
    assert red > 180 and blue < 60
    assert (drawn[t, 2, 2] == 100).all()
  assert (frames == 100).all()  # the input is not drawn on


def test_windows_are_the_cropped_pixels():
  frames = np.full([2, 64, 64, 3], 255, np.uint8)
  points = np.array([[[0, 0]], [[3.5, 4.4]]], np.float32)
  drawn = overlay.draw_windows(frames, points, patch_size=2, scale=8)
  assert (drawn[0] == 255).all()  # entry 0 has no patches
  ys, xs = np.nonzero((drawn[1] < 200).any(-1))
  # A5: nearest pixel (4, 4), halves up; pixels 3 and 4 span 24..39 at x8.
  assert {xs.min(), ys.min()} <= {23, 24}
  assert {xs.max(), ys.max()} <= {39, 40}


def test_patch_grid_places_patches_in_reading_order():
  patches = np.zeros([1, 3, 4, 4, 3], np.uint8)
  for k in range(3):
    patches[0, k] = 50 * (k + 1)
  grid = overlay.patch_grid(patches, 40, 40)[0]
  assert grid.shape == (40, 40, 3)
  centers = [grid[y, x, 0] for y, x in ((9, 9), (9, 29), (29, 9))]
  assert centers == [50, 100, 150]


def test_upscale_agrees_with_where_points_are_drawn():
  image = np.zeros([1, 8, 8, 3], np.uint8)
  image[0, 4, 2] = 255
  large = overlay.upscale(image, 8)[0, :, :, 0].astype(np.float64)
  moments = cv2.moments(large)
  assert moments['m10'] / moments['m00'] == pytest.approx(2.5 * 8 - 0.5, abs=1)
  assert moments['m01'] / moments['m00'] == pytest.approx(4.5 * 8 - 0.5, abs=1)
