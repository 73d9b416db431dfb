"""What every command does first: processes that join, and traces."""

import ast
import gzip
import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from configs import base, demo, preprocess
from configs.studies import paper
from experiments import launch


def test_a_process_alone_needs_no_flags():
  launch.join('', None, None, allowed=False)
  assert jax.process_count() == 1


@pytest.mark.parametrize(
  'flags',
  [
    ('', 2, 0),
    ('auto', 2, 0),
    ('localhost', 2, 0),
    ('localhost:1234', None, None),
    ('localhost:1234', 2, None),
    ('localhost:1234', 2, 2),
    ('localhost:port', 2, 0),
  ],
)
def test_flags_of_several_processes_that_do_not_fit(flags):
  with pytest.raises(ValueError, match='--coordinator=.*--process_id='):
    launch.join(*flags, allowed=True)


def test_a_command_for_one_process_says_so():
  with pytest.raises(ValueError, match='only pre-training'):
    launch.join('auto', None, None, allowed=False)


_WAITING = """
import threading
from experiments import launch

def main():
  threading.Thread(target=threading.Event().wait).start()
  print('saved')
  raise SystemExit(0)

launch.run(main)
"""


def test_who_was_told_to_end_waits_for_no_thread():
  """Of a compiler, say, which takes minutes."""
  done = subprocess.run(
    [sys.executable, '-c', _WAITING],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    check=False,
    timeout=300,
  )
  assert (done.returncode, done.stdout) == (0, 'saved\n'), done.stderr


def test_a_trace_holds_what_was_computed(tmp_path):
  def computed_under_the_profiler(x):
    return x @ x

  step = jax.jit(computed_under_the_profiler)
  with launch.traced(str(tmp_path), after=0.0, seconds=2.0):
    # Until it is written, since another thread records it when its turn comes.
    end = time.monotonic() + 300  # seconds, however busy the machine is
    while not list(tmp_path.rglob('perfetto_trace.json.gz')):
      assert time.monotonic() < end
      step(jnp.ones((8, 8))).block_until_ready()
      time.sleep(0.01)
  [path] = tmp_path.rglob('perfetto_trace.json.gz')
  with gzip.open(path) as file:
    events = json.load(file)['traceEvents']
  assert any('computed_under' in event.get('name', '') for event in events)
  assert list(tmp_path.rglob('*.xplane.pb'))  # for TensorBoard


def test_a_program_that_ends_before_its_trace_says_so(tmp_path, caplog):
  with launch.traced(str(tmp_path), after=60.0, seconds=1.0):
    pass
  assert '--profile_after' in caplog.text
  assert not list(tmp_path.iterdir())


_MEMORY = """
from experiments import launch
launch.prepare()
import jax, jax.numpy as jnp
def layer(x, w):
  return jnp.exp(jnp.sin(jnp.tanh(x @ w)))
def memory(layer):
  def loss(ws, x):
    for w in ws:
      x = layer(x, w)
    return x.sum()
  args = [jnp.ones((8, 8))] * 8, jnp.ones((4096, 8))
  compiled = jax.jit(jax.grad(loss)).lower(*args).compile()
  return compiled.memory_analysis().temp_size_in_bytes
print(memory(layer), memory(jax.checkpoint(layer)))
"""


def test_on_cpus_what_is_computed_again_is_not_kept():
  """XLA alone would make one of the two computations, and keep all."""
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  command = [sys.executable, '-c', _MEMORY]
  output = subprocess.run(
    command, env=env, stdout=subprocess.PIPE, text=True, check=True
  ).stdout
  kept, recomputed = map(int, output.split())
  assert recomputed < 0.6 * kept


_BEGUN = """
import os, sys
from experiments import launch
print('begun')
launch.run(lambda: print(sys.argv[1:], os.environ['GLIBC_TUNABLES']))
"""


@pytest.mark.skipif(
  not launch.HUGE_PAGE_MODES.exists()
  or '[madvise]' not in launch.HUGE_PAGE_MODES.read_text(),
  reason='a kernel that gives huge pages to who asks',
)
@pytest.mark.parametrize('chosen', ['', 'glibc.malloc.perturb=1'])
def test_a_command_begins_again_to_take_huge_pages(chosen, tmp_path):
  path = tmp_path / 'command.py'
  path.write_text(_BEGUN)
  output = subprocess.run(
    [sys.executable, str(path), '--notraceback'],
    env={**os.environ, 'GLIBC_TUNABLES': chosen, 'PYTHONPATH': os.getcwd()},
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout
  assert output.splitlines() == [
    'begun',
    'begun',
    "['--notraceback'] " + ':'.join(filter(None, [chosen, launch.HUGE_PAGES])),
  ]


_ROOT = pathlib.Path(__file__).parents[2]
# Those named accelerator* measure the time to compile, so run without a cache,
# and expand their two paths themselves.
_COMMANDS = sorted(
  path
  for folder in ('experiments', 'benchmarks')
  for path in (_ROOT / folder).glob('*.py')
  if '__main__' in path.read_text() and not path.stem.startswith('accelerator')
)
_CONVERTERS = sorted(
  path
  for folder in ('drp_jax/convert', 'tests/parity')
  for path in (_ROOT / folder).glob('*.py')
  if 'add_argument' in path.read_text()
)


def _texts(config, name='config'):
  """Settings that may be a text, or several."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _texts(value, f'{name}.{key}')
    elif isinstance(value, str | tuple):
      yield f'{name}.{key}', config, key


@pytest.mark.parametrize(
  'config',
  [
    base.get_config(),
    preprocess.get_config(),
    demo.get_config(),
    paper.get_config('fig4'),
  ],
  ids=['base', 'preprocess', 'demo', 'study'],
)
def test_home_in_every_setting(config, monkeypatch):
  """Those that are no paths cannot begin with it anyway."""
  monkeypatch.setenv('HOME', '/home/somebody')
  settings = list(_texts(config))
  assert len(settings) > 4
  for _, section, key in settings:
    one = section[key] == '' or isinstance(section[key], str)
    section[key] = '~/x' if one else ('~/x', 'name=~/x', 'y~/x')
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_dict(
    'config', config, 'Settings.', flag_values=values
  )
  values(['program'])
  launch.expand_flags(values)
  for name, section, key in settings:
    expected = (
      '/home/somebody/x'
      if isinstance(section[key], str)
      else ('/home/somebody/x', 'name=/home/somebody/x', 'y~/x')
    )
    assert section[key] == expected, name
  assert holder.value is config or holder.value == config


@pytest.mark.parametrize('path', _COMMANDS, ids=lambda path: path.stem)
def test_every_command_reads_its_flags_through_launch(path):
  """All flags of all commands, since `launch.run` expands what it parsed."""
  called = {
    ast.unparse(node.func)
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Call)
  }
  assert called & {'launch.run', 'finetune_work.run'}
  assert 'app.run' not in called


def test_home_in_flags_of_all_kinds(monkeypatch):
  monkeypatch.setenv('HOME', '/home/somebody')
  values = flags.FlagValues()
  own = dict(flag_values=values)
  flags.DEFINE_string('workdir', None, '', **own)
  flags.DEFINE_string('out', '~/out', '', **own)
  flags.DEFINE_string('nothing', None, '', **own)
  flags.DEFINE_list('models', None, '', **own)
  flags.DEFINE_multi_string('more', [], '', **own)
  flags.DEFINE_integer('number', 3, '', **own)
  values(['program', '--workdir=~/run', '--models=a=~/a,b=~/b', '--more=~'])
  launch.expand_flags(values)
  assert values.workdir == '/home/somebody/run'
  assert values.out == '/home/somebody/out'
  assert values.models == ['a=/home/somebody/a', 'b=/home/somebody/b']
  assert values.more == ['/home/somebody']
  assert (values.nothing, values.number) == (None, 3)
  values(['program', '--workdir=~no_such_user_/run'])
  with pytest.raises(ValueError, match='--workdir=.*no such user.*./~no_such'):
    launch.expand_flags(values)


@pytest.mark.parametrize('path', _CONVERTERS, ids=lambda path: path.stem)
def test_home_in_arguments_of_converters(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Call) and 'add_argument' in ast.unparse(node.func):
      text = ast.unparse(node)
      known = 'os.path.expanduser', '**path', 'type=int'
      assert any(name in text for name in known), text


def test_home_on_a_real_command_line(tmp_path):
  """A config file of the user's, a setting and a flag; one error, no folder."""
  home, cwd = tmp_path / 'home', tmp_path / 'cwd'
  home.mkdir()
  cwd.mkdir()
  (home / 'mine.py').write_text(
    'from configs import pretrain\n'
    'def get_config():\n'
    "  config = pretrain.get_config('debug')\n"
    "  config.init_from = '~/never_read'\n"
    '  return config\n'
  )
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'experiments.run_pretrain'),
      *('--config=~/mine.py', '--config.data.shards_dir=~/shards'),
      '--workdir=~/runs/first',
    ],
    cwd=cwd,
    env={**os.environ, 'HOME': str(home), 'PYTHONPATH': str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert f"shards_dir='{home}/shards' is not a" in done.stderr, done.stderr
  assert (home / 'runs' / 'first').is_dir()
  assert list(cwd.iterdir()) == []


@pytest.mark.parametrize('name', ['run_pretrain', 'run_dmcr', 'run_metaworld'])
def test_what_begins_twice_imports_libraries_once(name):
  """A command that begins again has not imported JAX the first time."""
  script = (
    f'import sys, experiments.{name};'
    " print(*{'jax', 'grain', 'orbax', 'tensorflow_datasets'} & {*sys.modules})"
  )
  output = subprocess.run(
    [sys.executable, '-c', script],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout
  assert not output.split()
