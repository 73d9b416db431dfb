"""Back-ends by name: what each needs, and what is written down about it."""

import importlib.util
import re
import subprocess
import sys

import numpy as np
import pytest

from configs import extract as extract_config
from drp_jax.data import schema
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import extract, stream, truth


def _settings(**changes):
  config = extract_config.get_config()
  config.update_from_flattened_dict(changes)
  return config.to_dict()


@pytest.mark.parametrize('key', ['flow', 'mask', 'tracker'])
def test_unknown_names_are_named_with_what_there_is(key):
  with pytest.raises(ValueError, match=rf"extract\.{key}='no'.*\[.*'sim'\]"):
    backends_lib.make_backends(
      backends_lib.Settings(**_settings(**{key: 'no'}))
    )


_LEARNED = [
  ('flow', 'sea_raft', 'sea_raft.weights'),
  ('mask', 'grounded_sam', 'grounded_sam.detector'),
  ('mask', 'onnx', 'onnx.model'),
  ('tracker', 'cotracker3', 'cotracker3.checkout'),
  ('tracker', 'tapir', 'tapir.checkout'),
]


@pytest.mark.parametrize(('key', 'name', 'path'), _LEARNED)
def test_weights_that_are_not_there_are_one_error(key, name, path):
  """The settings in configs fit the makers, up to the first file."""
  pytest.importorskip('onnxruntime' if name == 'onnx' else 'transformers')
  with pytest.raises(
    ValueError, match=rf"^config\.extract\.{path}='' must name"
  ):
    backends_lib.make_backends(
      backends_lib.Settings(**_settings(**{key: name}))
    )


@pytest.mark.parametrize(
  ('key', 'name', 'package', 'extra'),
  [
    ('flow', 'sea_raft', 'torch', 'torch'),
    ('mask', 'grounded_sam', 'transformers', 'grounded_sam'),
    ('mask', 'onnx', 'onnxruntime', 'onnx'),
    ('tracker', 'cotracker3', 'safetensors', 'torch'),
    ('tracker', 'tapir', 'einshape', 'tapir'),
  ],
)
def test_a_missing_package_names_the_extra(
  monkeypatch, key, name, package, extra
):
  there = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, 'find_spec', lambda n: None if n == package else there(n)
  )
  message = rf"{key}='{name}' needs .*{package}.* '\.\[{extra}\]'"
  with pytest.raises(ValueError, match=message):
    backends_lib.make_backends(
      backends_lib.Settings(**_settings(**{key: name}))
    )


_SCRIPT = """
import sys
from drp_jax.preprocess import backends, extract, stream
made = backends.make_backends(backends.Settings())
stream.StreamingExtractor(made, 4)
print(sorted({'torch', 'transformers', 'onnxruntime', 'safetensors', 'tree'}
             & sys.modules.keys()))
"""


def test_the_defaults_load_no_learned_model():
  done = subprocess.run(
    [sys.executable, '-c', _SCRIPT], capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'


def test_the_defaults_are_those_of_the_config(backends):
  configured = backends_lib.make_backends(backends_lib.Settings(**_settings()))
  assert configured.description == backends.description
  assert re.fullmatch(
    r'flow=dis mask=motion_colour tracker=farneback opencv=[\d.]+',
    backends.description,
  )


def test_the_simulator_is_a_back_end():
  made = backends_lib.make_backends(
    backends_lib.Settings(**_settings(flow='sim', mask='sim', tracker='sim'))
  )
  assert made.flow is truth.flow
  assert made.mask is truth.mask
  assert isinstance(made.tracker, truth.Tracker)


def test_trackers_that_look_ahead_are_refused_while_acting(backends):
  class Ahead:
    def over_clip(self, footage):
      raise NotImplementedError

  made = backends_lib.Backends(backends.flow, backends.mask, Ahead(), '')
  message = r"extract\.tracker: Ahead .*\['farneback', 'tapir', 'sim'\]"
  with pytest.raises(ValueError, match=message):
    stream.StreamingExtractor(made, 4)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A file of random weights of SEA-RAFT's smallest size."""
  torch = pytest.importorskip('torch')
  from drp_jax.preprocess import sea_raft

  torch.manual_seed(0)
  path = tmp_path_factory.mktemp('weights') / 'S.pth'
  torch.save(sea_raft.SeaRaft(*sea_raft.SIZES['S']).state_dict(), path)
  return str(path)


def _sea_raft(weights, **changes):
  settings = {'size': 'S', 'weights': weights, 'frame_side': 128}
  changes |= {f'sea_raft.{key}': value for key, value in settings.items()}
  return _settings(flow='sea_raft', **changes)


def test_a_clip_by_a_learned_flow(weights, square_clip):
  made = backends_lib.make_backends(backends_lib.Settings(**_sea_raft(weights)))
  out = extract.extract_clip(
    square_clip.footage[:3], made, np.random.default_rng(0)
  )
  schema.check(out, schema.clip_fields(3), 'extract_clip')


def test_what_was_used_is_described_without_a_path(weights):
  made = backends_lib.make_backends(backends_lib.Settings(**_sea_raft(weights)))
  description = made.description
  assert description.startswith("flow=sea_raft(size='S', frame_side=128, ")
  assert re.search(
    r'weights\.sha256=[0-9a-f]{64}, torch=[\w.+]+\)', description
  )
  assert 'S.pth' not in description and '/' not in description
  assert 'batch_size' not in description


def test_threads_and_devices_are_set_not_left_to_chance(weights):
  import torch

  try:
    backends_lib.make_backends(
      backends_lib.Settings(**_sea_raft(weights, torch_threads=2))
    )
    assert torch.get_num_threads() == 2
  finally:
    backends_lib.make_backends(backends_lib.Settings(**_sea_raft(weights)))
  assert torch.get_num_threads() == 1
  if not torch.cuda.is_available():
    with pytest.raises(ValueError, match=r"extract\.device='cuda': .* no GPU"):
      backends_lib.make_backends(
        backends_lib.Settings(**_sea_raft(weights, device='cuda'))
      )


@pytest.mark.parametrize('scene', extract_config.PROMPTS)
def test_every_prompt_has_the_form_that_is_asked_for(scene):
  prompt = extract_config.get_config(scene).grounded_sam.prompt
  assert re.fullmatch(r'([a-z ]+\.)( [a-z ]+\.)*', prompt)


def test_an_unknown_scene_is_named():
  with pytest.raises(ValueError, match=r"\('people', .*, not 'sea'"):
    extract_config.get_config('sea')
