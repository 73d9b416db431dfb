"""Start-up of every command: flags, and settings that JAX reads once."""

import contextlib
import ctypes
import gc
import os
import pathlib
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
from absl import app, flags, logging

# Flags of XLA's CPU backend (jaxlib 0.10.2; check again when it changes).
_CPU_FLAGS = {
  # The default fusion makes backward convolutions up to twice as slow.
  'xla_cpu_experimental_ynn_fusion_type': 'individual_dot,reduce',
  # This pass removes the barrier between the two computations of
  # `config.remat`. They would be merged again, and everything would be kept.
  'xla_disable_hlo_passes': 'cse_barrier_expander',
}

# glibc's mallopt (malloc.h): freed memory is kept for the next step. Otherwise
# the kernel provides every large buffer again, page by page, which takes a
# quarter of a step of `nano`. With one arena for all threads (M_ARENA_MAX) no
# page would be returned, but after minutes searching its lists of free pieces
# took another quarter of the time.
_MALLOC_OPTIONS = {
  -1: -1,  # M_TRIM_THRESHOLD: never
  -2: 2**28,  # M_TOP_PAD, bytes
  -4: 0,  # M_MMAP_MAX, buffers
}

# Makes glibc (from 2.35) request huge pages. Large buffers are freed and mapped
# again within a step in spite of the options above. With pages of 4 KiB this
# took a quarter of a step, at `nano` and at `paper`.
HUGE_PAGES = 'glibc.malloc.hugetlb=1'
HUGE_PAGE_MODES = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')

_CONFIG_FILE = re.compile(r'(--?config=)(~.*)')
_HOME = re.compile(r'([\w.-]+=)?(~.*)', re.DOTALL)  # '~/run', 'name=~/run'


def prepare() -> None:
  """Sets options that XLA, malloc and the cache read once, at their start."""
  import jax

  if jax.config.jax_platforms == 'cpu' or not _has_accelerator():
    chosen = os.environ.get('XLA_FLAGS', '')
    ours = [
      f'--{name}={value}'
      for name, value in _CPU_FLAGS.items()
      if name not in chosen
    ]
    os.environ['XLA_FLAGS'] = ' '.join([chosen, *ours])
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)  # glibc only
    for option, value in _MALLOC_OPTIONS.items() if mallopt else ():
      mallopt(option, value)
  cache = pathlib.Path(
    os.environ.get('JAX_COMPILATION_CACHE_DIR')
    or pathlib.Path.home() / '.cache' / 'drp_jax' / 'xla'
  )
  jax.config.update('jax_compilation_cache_dir', str(cache))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  # Tracing makes millions of objects and hardly any garbage. Collecting it took
  # an eighth of the tracing time.
  gc.freeze()
  gc.set_threshold(100_000, 20, 50)


def run(main: Callable[[], None], several_processes: bool = False) -> None:
  """Parses flags, then runs `main`; user errors end without a traceback.

  Args:
    main: function of the command.
    several_processes: whether it may run in several, see --coordinator.
  """

  def wrapped(argv: list[str]) -> None:
    if len(argv) > 1:
      raise app.UsageError(f'Unknown argument {argv[1]!r}.')
    _take_huge_pages()
    prepare()
    logging.set_verbosity(logging.WARNING)
    try:
      expand_flags(flags.FLAGS)
      join(
        _COORDINATOR.value,
        _NUM_PROCESSES.value,
        _PROCESS_ID.value,
        several_processes,
      )
      with traced(_PROFILE.value, _PROFILE_AFTER.value, _PROFILE_SECONDS.value):
        main()
    except SystemExit as end:
      if end.code or several_processes:  # several shut down together
        raise
      # SIGTERM: everything is saved. A compiler's thread might take minutes.
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(0)
    except (ValueError, RuntimeError) as error:
      # Of runtime errors only plain ones, which are ours, not those of JAX.
      ours = isinstance(error, ValueError) or type(error) is RuntimeError
      if flags.FLAGS.traceback or not ours:
        raise
      sys.exit(f'Error: {error}\n(--traceback shows where.)')

  app.run(wrapped, flags_parser=_parse)


def expand_flags(values: flags.FlagValues) -> None:
  """Replaces `~` in every flag and every setting of a config.

  The shell replaces it at the beginning of a word only, not in --workdir=~/run.
  A text that begins with it is a path, because no other flag or setting begins
  with it. Lists and tuples may also hold 'name=~/path'.

  Args:
    values: parsed flags.

  Raises:
    ValueError: if there is no such user; the message names the flag.
  """
  for name in values:
    value = values[name].value
    if isinstance(value, ml_collections.ConfigDict):
      _expand_config(name, value)
    else:
      values[name].value = _expanded(f'--{name}', value)


def _expand_config(name: str, config: ml_collections.ConfigDict) -> None:
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      _expand_config(f'{name}.{key}', value)
    elif isinstance(value, str | tuple | list):
      expanded = _expanded(f'{name}.{key}', value)
      if expanded != value:
        config[key] = expanded


def _expanded(name: str, value: Any) -> Any:
  """Replaces `~` in a text, or in the texts of a list or tuple."""
  if isinstance(value, list | tuple):
    return type(value)(_expanded(name, item) for item in value)
  if not isinstance(value, str):
    return value
  found = _HOME.fullmatch(value)
  if found is None:
    return value
  before, path = found[1] or '', found[2]
  expanded = os.path.expanduser(path)
  if expanded.startswith('~'):
    raise ValueError(
      f'{name}={value!r}: there is no such user. A file of that name is'
      f' {"./" + path!r}.'
    )
  return before + expanded


def _parse(argv: Sequence[str]) -> list[str]:
  """Parses flags; config files are read here, so `~` is replaced before."""
  expanded = [
    _CONFIG_FILE.sub(lambda found: found[1] + os.path.expanduser(found[2]), arg)
    for arg in argv
  ]
  return app.parse_flags_with_usage(expanded)


def join(
  coordinator: str,
  num_processes: int | None,
  process_id: int | None,
  allowed: bool,
) -> None:
  """Makes this process one of several that compute together.

  Args:
    coordinator: '' for a single process; 'host:port' of the first process;
      'auto' to ask SLURM, Open MPI, or the metadata of a TPU pod.
    num_processes: number of processes; not with 'auto'.
    process_id: number of this process; not with 'auto'.
    allowed: whether the command may run in several processes.

  Raises:
    ValueError: for flags that contradict each other.
  """
  if not coordinator and (num_processes, process_id) == (None, None):
    return
  if not allowed:
    raise ValueError(
      'This command runs in one process, on all devices of its host; only'
      ' pre-training accepts --coordinator, --num_processes and --process_id.'
    )
  import jax

  if coordinator == 'auto' and (num_processes, process_id) == (None, None):
    jax.distributed.initialize()
    return
  host, _, port = coordinator.rpartition(':')
  number = -1 if process_id is None else process_id
  if not host or not port.isdecimal() or not 0 <= number < (num_processes or 0):
    raise ValueError(
      f'--coordinator={coordinator!r} --num_processes={num_processes}'
      f' --process_id={process_id}: give host:port of the first process, their'
      ' number, and which this is, from 0 on; or only --coordinator=auto, on'
      ' SLURM, Open MPI and TPU pods.'
    )
  jax.distributed.initialize(coordinator, num_processes, process_id)


@contextlib.contextmanager
def traced(folder: str, after: float, seconds: float) -> Iterator[None]:
  """Records what the program does, for TensorBoard and Perfetto.

  Args:
    folder: folder for the trace of the first process; '' records nothing.
    after: seconds from now until it begins, to leave out compilation.
    seconds: length of the trace; it ends earlier with the program.
  """
  if not folder:
    yield
    return
  import jax

  if jax.process_index():
    yield
    return
  over = threading.Event()

  def record():
    if over.wait(after):
      logging.warning('--profile: ended before --profile_after=%g s.', after)
      return
    with jax.profiler.trace(folder, create_perfetto_trace=True):
      over.wait(seconds)

  thread = threading.Thread(target=record, name='profile')
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()


flags.DEFINE_bool('traceback', False, 'Show the traceback of a user error.')
_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  '',
  'Several processes: host:port of the first, or auto (SLURM, TPU pods).',
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Several processes: their number.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Several processes: number of this process, from 0.'
)
_PROFILE = flags.DEFINE_string(
  'profile', '', 'Folder for a trace of the JAX profiler; empty for none.'
)
_PROFILE_AFTER = flags.DEFINE_float(
  'profile_after', 60.0, 'Seconds until the trace begins.', 0.0
)
_PROFILE_SECONDS = flags.DEFINE_float(
  'profile_seconds', 10.0, 'Length of the trace in seconds.', 0.0
)


def _take_huge_pages() -> None:
  """Re-executes with GLIBC_TUNABLES set, which glibc reads only at start-up."""
  chosen = os.environ.get('GLIBC_TUNABLES', '')
  if (
    'glibc.malloc.hugetlb' in chosen
    or not HUGE_PAGE_MODES.exists()
    or '[madvise]' not in HUGE_PAGE_MODES.read_text()
    or _has_accelerator()
  ):
    return
  os.environ['GLIBC_TUNABLES'] = ':'.join(filter(None, [chosen, HUGE_PAGES]))
  sys.stdout.flush()
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _has_accelerator() -> bool:
  """Returns whether a plugin for GPUs or TPUs is installed."""
  from importlib import metadata

  names = {dist.metadata['Name'] for dist in metadata.distributions()}
  return any(
    name and name.startswith(('jax-cuda', 'jax-rocm', 'libtpu'))
    for name in names
  )
