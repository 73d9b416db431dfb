"""What every command does first: flags, and settings that JAX reads once."""

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

# Of XLA's CPU backend (jaxlib 0.10.2; check again when it changes).
_CPU_FLAGS = {
  # The default fusion makes backward convolutions up to twice as slow.
  'xla_cpu_experimental_ynn_fusion_type': 'individual_dot,reduce',
  # This pass takes out what keeps apart the two computations of `config.remat`;
  # they would become one again, and all would be kept after all.
  'xla_disable_hlo_passes': 'cse_barrier_expander',
}

# glibc's mallopt (malloc.h): what is freed is kept for the next step. Otherwise
# every large buffer comes from the kernel anew, page by page: a quarter of a
# step of `nano`. With one arena for all threads (M_ARENA_MAX) no page at all
# would be given back, but after minutes another quarter of the time went into
# the search of its lists of free pieces.
_MALLOC_OPTIONS = {
  -1: -1,  # M_TRIM_THRESHOLD: never
  -2: 2**28,  # M_TOP_PAD, bytes
  -4: 0,  # M_MMAP_MAX, buffers
}

# What makes glibc (from 2.35) ask for huge pages. Large buffers are freed and
# mapped anew within a step whatever the options above say; in pages of 4 KiB
# that took a quarter of a step, at `nano` and at `paper`.
HUGE_PAGES = 'glibc.malloc.hugetlb=1'
HUGE_PAGE_MODES = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')

_CONFIG_FILE = re.compile(r'(--?config=)(~.*)')
_HOME = re.compile(r'([\w.-]+=)?(~.*)', re.DOTALL)  # '~/run', 'name=~/run'


def prepare() -> None:
  """Sets what XLA, malloc and the cache read once; call before JAX starts."""
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
  # Tracing makes objects by the million and hardly any garbage among them:
  # looking for it took an eighth of tracing's time.
  gc.freeze()
  gc.set_threshold(100_000, 20, 50)


def run(main: Callable[[], None], several_processes: bool = False) -> None:
  """Parses flags, then runs `main`; user errors end without a traceback.

  Args:
    main: what the command does.
    several_processes: whether it may run in many, see --coordinator.
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
      if end.code or several_processes:  # these take leave of each other
        raise
      # SIGTERM: what had to be saved is. A compiler's thread may take minutes.
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(0)
    except (ValueError, RuntimeError) as error:
      # Of runtime errors only our own plain ones, not those of JAX.
      ours = isinstance(error, ValueError) or type(error) is RuntimeError
      if flags.FLAGS.traceback or not ours:
        raise
      sys.exit(f'Error: {error}\n(--traceback shows where.)')

  app.run(wrapped, flags_parser=_parse)


def expand_flags(values: flags.FlagValues) -> None:
  """Replaces `~` in every flag and every setting of a config.

  The shell replaces it at the beginning of a word only, not in --workdir=~/run.
  Texts that begin with it are paths, since no other flag or setting may; lists
  and tuples may also hold 'name=~/path'.

  Args:
    values: parsed flags.

  Raises:
    ValueError: for a user that there is not, naming the flag.
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
  """Replaces `~` in a text, or in those of a list or tuple."""
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
  """Parses flags; files of settings are read then, so `~` cannot stay."""
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
    coordinator: '' for a process alone; 'host:port' of the first; 'auto' to ask
      what started them: SLURM, Open MPI, or the metadata of a TPU pod.
    num_processes: how many; not with 'auto'.
    process_id: which of them this is; not with 'auto'.
    allowed: whether the command can.

  Raises:
    ValueError: for flags that do not fit each other.
  """
  if not coordinator and (num_processes, process_id) == (None, None):
    return
  if not allowed:
    raise ValueError(
      'This command runs in one process, on all devices of its host; only'
      ' pre-training knows --coordinator, --num_processes and --process_id.'
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
    folder: for the trace, which is the first process's; '' records nothing.
    after: seconds from now until it begins: most of compiling is uninteresting.
    seconds: that it takes; ends earlier with the program.
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


flags.DEFINE_bool('traceback', False, 'Show where a wrong setting was found.')
_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  '',
  'Several processes: host:port of the first, or auto (SLURM, TPU pods).',
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'Several processes: how many.'
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Several processes: which this is, from 0 on.'
)
_PROFILE = flags.DEFINE_string(
  'profile', '', 'Folder for a trace of the JAX profiler; empty for none.'
)
_PROFILE_AFTER = flags.DEFINE_float(
  'profile_after', 60.0, 'Seconds until the trace begins.', 0.0
)
_PROFILE_SECONDS = flags.DEFINE_float(
  'profile_seconds', 10.0, 'Seconds that the trace takes.', 0.0
)


def _take_huge_pages() -> None:
  """Begins this command once more if malloc has to be told before it starts."""
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
  """Whether a plugin for GPUs or TPUs is installed."""
  from importlib import metadata

  names = {dist.metadata['Name'] for dist in metadata.distributions()}
  return any(
    name and name.startswith(('jax-cuda', 'jax-rocm', 'libtpu'))
    for name in names
  )
