"""Which interpreter and which versions the Makefile chooses."""

import configparser
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import pytest
import yaml
from packaging import requirements, version

_ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
  shutil.which('make') is None, reason='There is no make.'
)


def _make(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
  """Runs make in the project, as if no other make had started this test."""
  inherited = {
    name: value
    for name, value in os.environ.items()
    if name not in ('MAKEFLAGS', 'MAKEOVERRIDES', 'MFLAGS', 'PYTHON')
  }
  return subprocess.run(
    [shutil.which('make'), *arguments],
    cwd=_ROOT,
    env=inherited | environ,
    capture_output=True,
    text=True,
    check=False,
  )


def _shown(tmp_path: pathlib.Path, code: str) -> str:
  """What a recipe of the Makefile prints whose PATH is `tmp_path`."""
  for name in ('cat', 'cksum', 'cut', 'echo', 'sed'):
    if not (tmp_path / name).exists():
      (tmp_path / name).symlink_to(shutil.which(name))
  makefile = tmp_path / 'show.mk'
  makefile.write_text(f'include Makefile\nshow: ; @{code}\n')
  done = _make('-s', '-f', str(makefile), 'show', PATH=str(tmp_path))
  assert done.returncode == 0, done.stderr
  return done.stdout.strip()


def _script(path: pathlib.Path, content: str) -> None:
  path.write_text(f'#!/bin/sh\n{content}\n')
  path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _python(path: pathlib.Path, minor: int) -> None:
  """Makes an interpreter that says it is Python 3.`minor`."""
  code = f'import sys; sys.version_info = (3, {minor}, 0); exec(sys.argv[1])'
  _script(path, f'exec {sys.executable} -c "{code}" "$2"')


@pytest.mark.parametrize(
  ('minors', 'chosen'),
  [
    ({'python3': 13, 'python3.11': 11}, 'python3'),
    ({'python3': 14, 'python3.13': 13, 'python3.12': 12}, 'python3.13'),
    ({'python3': 10, 'python3.11': 11}, 'python3.11'),
    ({'python3': 14}, 'python3'),  # whose message says what to do
  ],
)
def test_the_first_interpreter_that_fits_is_taken(tmp_path, minors, chosen):
  for name, minor in minors.items():
    _python(tmp_path / name, minor)
  assert _shown(tmp_path, 'echo $(PYTHON)') == chosen


def _workflow() -> dict:
  text = (_ROOT / '.github' / 'workflows' / 'ci.yml').read_text('utf-8')
  return yaml.safe_load(text)


def test_the_workflow_runs_on_every_interpreter_that_fits(tmp_path):
  """None newer, none older."""
  minors = range(8, 20)
  for minor in minors:
    _python(tmp_path / f'python3.{minor}', minor)
  fits = [
    f'3.{minor}'
    for minor in minors
    if _shown(
      tmp_path, f"python3.{minor} -c '$(USABLE)' && echo yes || echo no"
    )
    == 'yes'
  ]
  matrices = [
    job['strategy']['matrix']['python']
    for job in _workflow()['jobs'].values()
    if 'strategy' in job
  ]
  assert fits and matrices and all(found == fits for found in matrices)


def test_the_workflow_asks_for_what_the_makefile_has():
  steps = [s for job in _workflow()['jobs'].values() for s in job['steps']]
  asked = re.findall(r'make (\w+)', ' '.join(s.get('run', '') for s in steps))
  assert set(asked) == {'lint', 'test', 'docs', 'wheel'}
  for target in asked:
    assert _make('-n', target).returncode == 0, target


def test_uv_is_asked_where_none_fits_and_only_there(tmp_path):
  _python(tmp_path / 'python3', 14)
  _script(
    tmp_path / 'uv',
    f'echo "$*" >> {tmp_path}/calls; test $2 != find || echo /its/python3.13',
  )
  assert _shown(tmp_path, 'echo $(PYTHON)') == '/its/python3.13'
  calls = (tmp_path / 'calls').read_text().splitlines()
  assert calls[0] == 'python install --quiet 3.13' and len(calls) == 2
  _shown(tmp_path, 'echo')
  _python(tmp_path / 'python3', 12)
  assert _shown(tmp_path, 'echo $(PYTHON)') == 'python3'
  assert len((tmp_path / 'calls').read_text().splitlines()) == 2


def test_a_uv_that_can_fetch_nothing_is_as_none(tmp_path):
  _python(tmp_path / 'python3', 14)
  _script(tmp_path / 'uv', 'echo error >&2; exit 2')
  assert _shown(tmp_path, 'echo $(PYTHON)') == 'python3'


def test_an_interpreter_that_does_not_fit_is_refused(tmp_path):
  _python(tmp_path / 'python3', 14)
  path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
  done = _make(f'VENV={tmp_path / "venv"}', 'demo', PATH=path, PYTHON='python3')
  assert done.returncode != 0
  assert 'Python 3.11 to 3.13 is needed, python3 is not' in done.stderr
  assert 'uv' in done.stderr and not (tmp_path / 'venv').exists()


def _ranges() -> dict[str, requirements.Requirement]:
  """Requirements of setup.cfg with a lower end, by name."""
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg')
  lines = config['options']['install_requires'].split('\n')
  for extra in config['options.extras_require'].values():
    lines += extra.split('\n')
  found = [requirements.Requirement(line) for line in lines if line]
  return {
    r.name: r for r in found if any(s.operator == '>=' for s in r.specifier)
  }


def test_the_oldest_versions_are_the_lower_ends(tmp_path):
  lines = _shown(tmp_path, '$(LOWER_ENDS)').splitlines()
  ends = {r.name: r for r in map(requirements.Requirement, lines)}
  assert ends.keys() == _ranges().keys()
  for name, found in _ranges().items():
    (lower,) = [s.version for s in found.specifier if s.operator == '>=']
    assert str(ends[name].specifier) == f'=={lower}.*'
    assert lower.count('.') > 0, f'{name}: with a minor version.'


def test_the_exact_set_lies_within_the_ranges():
  pins = dict(
    line.split('#')[0].split(';')[0].strip().split('==')
    for line in (_ROOT / 'constraints.txt').read_text().splitlines()
    if not line.startswith('#')
  )
  pins = {name.lower().replace('_', '-'): v for name, v in pins.items()}
  for name, found in _ranges().items():
    if name == 'apache-beam':  # has an environment of its own
      continue
    pin = pins[name.lower().replace('_', '-')]
    assert found.specifier.contains(version.Version(pin)), f'{name}=={pin}'
