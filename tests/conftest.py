"""Devices, caches and strict modes of all tests; what many of them share."""

import os
import pathlib
from importlib import metadata

# Read once, when JAX starts: four devices on any machine, if XLA_FLAGS does not
# say otherwise; the fusion that runs use (experiments/launch.py). No
# optimization by LLVM, and of the two emitters of kernels that JAX 0.10 has the
# older one, which compiles in half the time: tests compile for minutes and run
# for milliseconds.
_OLD_EMITTERS = ['--xla_cpu_use_fusion_emitters=false']
os.environ['XLA_FLAGS'] = ' '.join(
  [
    '--xla_force_host_platform_device_count=4',
    os.environ.get('XLA_FLAGS', ''),
    '--xla_cpu_experimental_ynn_fusion_type=individual_dot,reduce',
    '--xla_backend_optimization_level=0',
    *(_OLD_EMITTERS if metadata.version('jaxlib').startswith('0.10.') else []),
  ]
)
os.environ['JAX_PLATFORMS'] = 'cpu'
# What was compiled is kept, also by commands that tests start. Small programs
# too, since they are many: to read one takes a fifth of the time of compiling
# it. Without XLA's own caches, whose folder would be a part of every key: each
# checkout would then compile everything, even with a copied .cache.
_ROOT = pathlib.Path(__file__).parents[1]
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(_ROOT / '.cache' / 'xla')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES'] = 'none'
# So that commands do not begin twice (experiments/launch.py).
os.environ['GLIBC_TUNABLES'] = 'glibc.malloc.hugetlb=1'

import gc  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402
import random_inputs  # noqa: E402

from configs import preprocess as preprocess_config  # noqa: E402
from drp_jax.envs import gl  # noqa: E402
from drp_jax.preprocess import video  # noqa: E402
from experiments import run_preprocess  # noqa: E402

pytest_plugins = ('system_fixtures',)

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)

# Tracing makes objects by the million and no garbage among them: what is
# imported is not looked through for it again and again, the rest more rarely.
gl.load_triton()  # some tests render, others of the same process use torch
gc.freeze()
gc.set_threshold(100_000, 20, 50)


@pytest.fixture(scope='module', autouse=True)
def _forget_compiled_functions():
  """Frees what a file compiled.

  Each compiled function takes dozens of memory mappings, and a process that has
  used up its 65530 (Linux's vm.max_map_count) dies in the next compilation.
  """
  yield
  jax.clear_caches()


@pytest.fixture(scope='session')
def real_shards(tmp_path_factory):
  """Shards of real video files, made by the command that users run."""
  videos = tmp_path_factory.mktemp('videos')
  shards = tmp_path_factory.mktemp('shards')
  for seed in range(2):
    frames = random_inputs.moving_squares(80, seed)
    video.write_video(videos / f'{seed}.mp4', frames, 25)
  config = preprocess_config.get_config()
  config.path, config.data.shards_dir = str(videos), str(shards)
  config.data.clip_stride = 5
  config.data.validation_fraction = 0.45
  config.data.num_workers = 1
  run_preprocess.preprocess(config)
  return shards
