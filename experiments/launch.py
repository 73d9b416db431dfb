"""What every command does first: flags, and settings that JAX reads once."""

import ctypes
import os
import pathlib
import sys
from collections.abc import Callable

from absl import app, flags, logging

# The default fusion of XLA's CPU backend makes backward convolutions up to
# twice as slow (jaxlib 0.10.2; check again when it changes).
_CPU_FLAGS = '--xla_cpu_experimental_ynn_fusion_type=individual_dot,reduce'

# glibc's mallopt (malloc.h): what is freed is kept for the next step. Otherwise
# every large buffer comes from the kernel anew, page by page: a quarter of a
# step of `nano`.
_MALLOC_OPTIONS = {
  -1: 2**31 - 1,  # M_TRIM_THRESHOLD, bytes
  -2: 2**28,  # M_TOP_PAD, bytes
  -4: 0,  # M_MMAP_MAX, buffers
  -8: 1,  # M_ARENA_MAX
}


def prepare() -> None:
  """Sets what XLA, malloc and the cache read once; call before JAX starts."""
  import jax

  if jax.config.jax_platforms == 'cpu' or not _has_accelerator():
    os.environ.setdefault('XLA_FLAGS', '')
    if 'ynn_fusion_type' not in os.environ['XLA_FLAGS']:
      os.environ['XLA_FLAGS'] += f' {_CPU_FLAGS}'
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)  # glibc only
    for option, value in _MALLOC_OPTIONS.items() if mallopt else ():
      mallopt(option, value)
  cache = pathlib.Path(
    os.environ.get('JAX_COMPILATION_CACHE_DIR')
    or pathlib.Path.home() / '.cache' / 'drp_jax' / 'xla'
  )
  jax.config.update('jax_compilation_cache_dir', str(cache))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


def run(main: Callable[[], None]) -> None:
  """Parses flags, then runs `main`; user errors end without a traceback."""

  def wrapped(argv: list[str]) -> None:
    if len(argv) > 1:
      raise app.UsageError(f'Unknown argument {argv[1]!r}.')
    prepare()
    logging.set_verbosity(logging.WARNING)
    try:
      main()
    except (ValueError, RuntimeError) as error:
      # Of runtime errors only our own plain ones, not those of JAX.
      ours = isinstance(error, ValueError) or type(error) is RuntimeError
      if flags.FLAGS.traceback or not ours:
        raise
      sys.exit(f'Error: {error}\n(--traceback shows where.)')

  app.run(wrapped)


flags.DEFINE_bool('traceback', False, 'Show where a wrong setting was found.')


def _has_accelerator() -> bool:
  """Whether a plugin for GPUs or TPUs is installed."""
  from importlib import metadata

  names = {dist.metadata['Name'] for dist in metadata.distributions()}
  return any(
    name and name.startswith(('jax-cuda', 'jax-rocm', 'libtpu'))
    for name in names
  )
