"""What every command does first: flags, and settings that JAX reads once."""

import os
import pathlib
import sys
from collections.abc import Callable

from absl import app, flags, logging

# The default fusion of XLA's CPU backend makes backward convolutions up to
# twice as slow (jaxlib 0.10.2; check again when it changes).
_CPU_FLAGS = '--xla_cpu_experimental_ynn_fusion_type=individual_dot,reduce'


def prepare() -> None:
  """Sets flags of XLA and the compilation cache; call before JAX starts."""
  import jax

  if jax.config.jax_platforms == 'cpu' or not _has_accelerator():
    os.environ.setdefault('XLA_FLAGS', '')
    if 'ynn_fusion_type' not in os.environ['XLA_FLAGS']:
      os.environ['XLA_FLAGS'] += f' {_CPU_FLAGS}'
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
