"""Devices, caches and strict modes of every test; systems that tests share."""

import os
import pathlib

# Read once, when JAX starts: four devices on any machine, and the fusion of
# experiments/launch.py, so that tests time and round as runs do.
_XLA_FLAGS = (
    '--xla_force_host_platform_device_count=4',
    '--xla_cpu_experimental_ynn_fusion_type=individual_dot,reduce',
)
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *_XLA_FLAGS])
os.environ['JAX_PLATFORMS'] = 'cpu'

import jax  # noqa: E402

_ROOT = pathlib.Path(__file__).parents[1]
jax.config.update('jax_compilation_cache_dir', str(_ROOT / '.cache' / 'xla'))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_debug_key_reuse', True)
