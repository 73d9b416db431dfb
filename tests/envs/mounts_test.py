"""Moved cameras and lights are those of a model compiled with them there."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from drp_jax.envs import gl, looks, mounts

ORIENTATIONS = ('quat', 'axisangle', 'xyaxes', 'zaxis', 'euler')


def compile_model(domain, camera=None, light=None):
  """Compiles the suite's model, with other attributes of the first of each."""
  gl.select_backend()
  import mujoco
  from dm_control.suite import common

  root = ET.fromstring(common.read_model(f'{domain}.xml'))
  for kind, changes in (('camera', camera or {}), ('light', light or {})):
    element = next(root.iter(kind))
    if set(changes) & set(ORIENTATIONS):
      for name in ORIENTATIONS:
        element.attrib.pop(name, None)
    for name, numbers in changes.items():
      element.set(name, ' '.join(map(repr, map(float, numbers))))
  assets = {k.removeprefix('./'): v for k, v in common.ASSETS.items()}
  assets['common/skybox.xml'] = b'<mujoco><option/></mujoco>'  # slow
  return mujoco.MjModel.from_xml_string(ET.tostring(root), assets)


def poses(model):
  """Where camera and light are in some pose: [n] numbers."""
  import mujoco

  data = mujoco.MjData(model)
  rng = np.random.default_rng(0)
  data.qpos += rng.uniform(-1, 1, model.nq)
  mujoco.mj_forward(model, data)
  parts = data.cam_xpos[0], data.cam_xmat[0], data.light_xpos[0]
  return np.concatenate(parts)


@pytest.mark.parametrize('domain', looks.DOMAINS)
def test_moved_is_compiled(domain):
  look = looks.draw(7, domain, 1, 1)
  camera, light = {'pos': look.camera_position}, {}
  if looks.DOMAINS[domain].slope:
    slope = 1 / np.tan(np.radians(look.camera_euler[0]))
    camera['xyaxes'] = [1, 0, 0, 0, slope, 1]
  elif look.camera_euler is not None:
    camera['euler'] = look.camera_euler
  if look.light_position is not None:
    light['pos'] = look.light_position
  expected = compile_model(domain, camera, light)

  stock, moved = compile_model(domain), compile_model(domain)
  mount = mounts.find(moved, moved.cam_bodyid[0])
  mounts.place_camera(moved, 0, mount, look.camera_position, look.camera_euler)
  if look.light_position is not None:
    mount = mounts.find(moved, moved.light_bodyid[0])
    mounts.place_light(moved, 0, mount, look.light_position)

  for name in (
    'cam_pos',
    'cam_quat',
    'cam_pos0',
    'cam_poscom0',
    'cam_mat0',
    'light_pos',
    'light_pos0',
    'light_poscom0',
  ):
    np.testing.assert_allclose(
      getattr(moved, name), getattr(expected, name), atol=1e-9, err_msg=name
    )
  np.testing.assert_allclose(poses(moved), poses(expected), atol=1e-9)
  assert np.abs(poses(moved) - poses(stock))[:3].max() > 0.01
