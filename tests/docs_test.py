"""Every command in the documents: its program, config, keys, values, flags.

They are read as the programs would read them, and not run.
"""

import ast
import importlib
import pathlib
import re
import shlex

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_DOCUMENTS = [
  *('README.md', 'CONTRIBUTING.md', 'third_party/README.md'),
  *(str(p.relative_to(_ROOT)) for p in sorted((_ROOT / 'docs').rglob('*.md'))),
]
# Of commands, and what they share.
_FOLDERS = ('experiments', 'benchmarks', 'drp_jax.convert')
# Of absl, in every command.
_ABSL_FLAGS = {'help', 'helpfull', 'traceback'}
_DEFINITION = re.compile(
  r"(?:DEFINE_\w+|add_argument)\(\s*'(?:--)?(\w+)'", re.DOTALL
)


def _commands(document: str) -> list[str]:
  """Commands of Python in blocks of bash and in `code`, each on one line."""
  text = (_ROOT / document).read_text('utf-8')
  blocks = re.findall(r'^```bash\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
  rest = re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
  lines = '\n'.join(blocks).replace('\\\n', ' ').split('\n')
  inline = [code.replace('\n', ' ') for code in re.findall('`([^`]+)`', rest)]
  found = []
  for line in [*lines, *inline]:
    match = re.search(r'\bpython3? (.*)', line.split('#')[0])
    if match and re.match(
      r'(-m )?(experiments|benchmarks|drp_jax)\b', match[1]
    ):
      found.append(match[1].split(' | ')[0].strip(" &;'"))
  return found


def _program(words: list[str]) -> pathlib.Path:
  name = words[0]
  if name == '-m':
    name = words[1].replace('.', '/') + '.py'
  return _ROOT / name


def _flags_of(program: pathlib.Path) -> set[str]:
  """Names of the flags that it or what it imports of `_FOLDERS` defines."""
  text = program.read_text('utf-8')
  found = set(_DEFINITION.findall(text))
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.ImportFrom) and node.module in _FOLDERS:
      for name in node.names:
        folder = _ROOT / node.module.replace('.', '/')
        found |= _flags_of(folder / f'{name.name}.py')
  return found


def _config(value: str):
  """The config of `file.py:argument`."""
  file, _, argument = value.partition(':')
  assert (_ROOT / file).is_file(), f'There is no {file}.'
  module = importlib.import_module(file.removesuffix('.py').replace('/', '.'))
  return module.get_config(argument) if argument else module.get_config()


def _check(command: str) -> None:
  words = shlex.split(command)
  program = _program(words)
  assert program.is_file(), f'There is no {program.relative_to(_ROOT)}.'
  flags = [word for word in words if word.startswith('--')]
  pairs = dict(flag[2:].partition('=')[::2] for flag in flags)
  configs = [_config(pairs.pop('config'))] if 'config' in pairs else []
  values = {k: v for k, v in pairs.items() if k.startswith('config.')}
  names = {name.removeprefix('no') for name in pairs if name not in values}
  known = _flags_of(program)
  known |= {name.removeprefix('no') for name in known} | _ABSL_FLAGS
  assert names <= known, f'{program.name} has no flags {names - known}.'
  for config in configs:
    for name, value in values.items():
      _check_value(config, name.removeprefix('config.'), value)


def _check_value(config, key: str, value: str) -> None:
  *path, last = key.split('.')
  for name in path:
    config = config[name]
  kind = config.get_type(last)
  if value.startswith(('$', '...')):
    return  # the reader's
  if kind is bool:
    assert value in ('True', 'False'), f'{key}={value}'
  elif kind in (int, float):
    kind(value)


@pytest.mark.parametrize('document', _DOCUMENTS)
def test_commands_can_be_read(document):
  for command in _commands(document):
    _check(command)


def test_commands_are_found():
  found = [command for d in _DOCUMENTS for command in _commands(d)]
  programs = {_program(shlex.split(c)).stem for c in found}
  assert {
    'run_preprocess',
    'run_pretrain',
    'run_dmcr',
    'perception',
  } <= programs
  assert len(found) > 25


@pytest.mark.parametrize(
  ('command', 'message'),
  [
    ('experiments/run_dmrc.py --workdir=x', 'no experiments/run_dmrc.py'),
    ('experiments/run_dmcr.py --work_dir=x', 'no flags'),
    ('experiments/run_dmcr.py --config=configs/dmcr.py', 'no configs/dmcr.py'),
  ],
)
def test_mistakes_are_seen(command, message):
  with pytest.raises(AssertionError, match=message):
    _check(command)


def test_a_wrong_key_is_seen():
  with pytest.raises((AttributeError, KeyError), match='lrr'):
    _check(
      'experiments/run_dmcr.py --config=configs/finetune_dmcr.py:nano'
      ' --config.optim.lrr=1'
    )


def test_links_lead_somewhere():
  for document in _DOCUMENTS:
    path = _ROOT / document
    for link in re.findall(r'\]\(([^)#\s]+)', path.read_text('utf-8')):
      if not link.startswith(('http:', 'https:', 'mailto:')):
        assert (path.parent / link).exists(), f'{document}: {link}'


def test_the_reference_has_every_module():
  pages = (_ROOT / 'docs' / 'reference').glob('*.md')
  listed = sorted(
    name
    for page in pages
    for name in re.findall(r'^::: ([\w.]+)$', page.read_text(), re.MULTILINE)
  )
  modules = sorted(
    '.'.join(path.relative_to(_ROOT).with_suffix('').parts)
    for path in (_ROOT / 'drp_jax').rglob('*.py')
    if path.stem != '__init__'
  )
  assert listed == modules


def test_the_readme_stays_short():
  text = (_ROOT / 'README.md').read_text('utf-8')
  assert len(text.splitlines()) <= 150
  assert len(text.encode()) <= 10_000
  assert re.findall('^## (.*)', text, re.MULTILINE) == [
    'Install',
    'The pipeline on your own videos',
    'Use as a library',
    'Systems',
    'Directory',
    'Documentation',
    'Citation and license',
  ]


def test_every_id_in_the_code_is_a_choice():
  text = (_ROOT / 'docs' / 'choices.md').read_text('utf-8')
  known = set()
  for first, last in re.findall(
    r'^\| ([A-ENT]\d[^|]*?)(?:-([A-ENT]\d+))? \|', text, re.MULTILINE
  ):
    names = first.split(', ')
    if last:
      letter, begin = first[0], int(first[1:])
      names = [f'{letter}{i}' for i in range(begin, int(last[1:]) + 1)]
    known.update(names)
  assert len(known) > 90
  used = {
    (name, str(path.relative_to(_ROOT)))
    for folder in ('drp_jax', 'configs', 'experiments')
    for path in (_ROOT / folder).rglob('*.py')
    for group in re.findall(
      r'[(\[](?:[\w ]+[,;:] )?((?:[A-ENT]\d{1,2}(?:, )?)+)[)\]]',
      path.read_text('utf-8'),
    )
    for name in group.split(', ')
  }
  assert len({name for name, _ in used}) > 30
  missing = {pair for pair in used if pair[0] not in known}
  assert not missing, missing
