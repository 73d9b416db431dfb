"""Tests of studies: which runs they come to, and how those are run."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from configs.studies import base as study_base
from configs.studies import nano, paper, systems, throughput
from drp_jax.systems import registry
from experiments import study, study_index, study_runs

_ROOT = pathlib.Path(__file__).parents[2]
_ALL = (*paper.STUDIES, 'nano')
# Number of fine-tunings: systems x tasks x seeds.
_SIZES = {
  'fig4': 7 * 3 * 5,
  'fig5a': 7 * 6 * 5,
  'fig5b': 3 * 2 * 5,
  'fig6': 3 * 4 * 5,
  'fig7': 3 * 4 * 5,
  'fig12': 3 * 4 * 5,
  'fig13': 2 * 2 * 5,
  'table1': 4 * 2 * 5,
  'table2': 3 * 2 * 5,
  'table3': 3 * 5,
  'table4': 3 * 5,
  'nano': 4 * 4,
}


def _config(name, **changes):
  config = nano.get_config() if name == 'nano' else paper.get_config(name)
  config.shards_dir = 'shards/mine'
  config.update(changes)
  return config


def _small(**changes):
  """DRP alone, once, at debug size."""
  small = dict(
    name='small',
    systems=('drp',),
    tasks=('dmcr/walker_run',),
    seeds=(0,),
    presets=('debug',),
  )
  config = study_base.get_config()
  config.shards_dir = 'shards/mine'
  config.update(small | changes)
  return config


def test_every_study_is_listed_with_what_it_is():
  *listed, last = study.names().items()
  assert [path for path, _ in listed] == [
    f'configs/studies/paper.py:{name}' for name in _SIZES if name != 'nano'
  ]
  for path, what in listed:
    number = path.partition(':')[2].removeprefix('fig').removeprefix('table')
    assert re.search(rf'paper (Fig\.|Table) {number}\)', what)
  assert last[0] == 'configs/studies/nano.py' and 'pre-training' in last[1]


@pytest.mark.parametrize('name', ['', 'fig8', 'fig4 '])
def test_a_study_that_there_is_not_names_those_there_are(name):
  with pytest.raises(ValueError, match='is one of fig4, .*, table4; not '):
    paper.get_config(name)


@pytest.mark.parametrize('name', _ALL)
def test_the_matrix_of_a_study(name):
  config = _config(name)
  assert config.is_locked and config.name == name
  found = study_runs.cells(config)
  assert len(found) == _SIZES[config.name]
  assert len({cell.run.folder for cell in found}) == len(found)
  for cell in found:
    assert cell.run.config.agent in registry.SYSTEMS
    assert cell.run.config.seed == cell.seed
    assert cell.run.config.preset == cell.preset
    suite = cell.task.partition('/')[0]
    assert cell.run.config.env.suite == suite
    assert cell.run.config.task == cell.task.partition('/')[2]


@pytest.mark.parametrize('name', _ALL)
def test_commands_come_to_the_configs_that_name_their_folders(
  name, monkeypatch
):
  """Parsed as the commands do it."""
  monkeypatch.chdir(_ROOT)
  config = _config(name, seeds=(3,))
  for run in study_runs.runs(config):
    args = study_runs.command(run, pathlib.Path('runs'))
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', None, '', values)
    flags.DEFINE_string('workdir', None, '', values)
    scale = [arg for arg in args if 'flow_scale=<' in arg]
    args = [arg for arg in args[2:] if arg not in scale]
    monkeypatch.setattr(sys, 'argv', args)
    assert values(args) == [run.module]
    assert values.workdir == f'runs/{run.folder}'
    found, expected = values.config, run.config.copy_and_resolve_references()
    if run.needs:
      expected.init_from = f'runs/{run.needs}'
    if run.stage == 'pretrain':
      expected.data.shards_dir = 'shards/mine'
    assert found == expected
    assert bool(scale) == (run.stage == 'finetune' and bool(run.shards_dir))


def test_the_paper_takes_sixteen_pretrainings():
  """Those of DRP and of its variants, and of the four baselines."""
  folders = {
    run.folder
    for name in paper.STUDIES
    for run in study_runs.runs(_config(name, seeds=(0,)))
    if run.stage == 'pretrain'
  }
  names = sorted(re.sub('pretrain/(.*)-paper-.*', r'\1', f) for f in folders)
  assert len(folders) == len(set(names)) == 16
  assert {'drp', 'ipv', 'apv', 'prelar', 'diswm', 'global_flow'} <= set(names)
  assert not {'keypoints_16', 'mask_ratio_50', 'patch_16'} & set(names)


def test_a_table_shares_its_middle_row_where_it_is_the_presets():
  def folders(name, preset):
    return {
      cell.system: cell.run.folder
      for cell in study_runs.cells(_config(name, seeds=(0,), presets=(preset,)))
      if cell.task == 'dmcr/walker_run'
    }

  for preset in ('paper', 'nano'):
    ours = folders('table1', preset)['drp']
    assert folders('table3', preset)['mask_ratio_50'] == ours
    assert folders('table4', preset)['patch_16'] == ours
    keypoints = folders('table2', preset)
    same = 'keypoints_16' if preset == 'paper' else 'keypoints_8'
    assert [name for name, f in keypoints.items() if f == ours] == [same]
    assert len(set(keypoints.values())) == 3


def test_a_pretraining_stands_before_its_first_use_and_serves_all_seeds():
  for name in ('fig7', 'table1'):
    runs = study_runs.runs(_config(name, seeds=(0, 1)))
    folders = [run.folder for run in runs]
    assert len(set(folders)) == len(folders)
    for index, run in enumerate(runs):
      if run.needs:
        assert run.needs in folders[:index]
  runs = study_runs.runs(_config('nano'))
  assert [run.stage for run in runs].count('pretrain') == 3
  assert {run.config.seed for run in runs if run.stage == 'pretrain'} == {0}
  seeds = [run.config.seed for run in runs if run.stage == 'finetune']
  assert seeds == sorted(seeds)  # so that early results are of all systems


def test_folders_follow_what_is_run_and_nothing_else():
  def folders(**changes):
    return [run.folder for run in study_runs.runs(_small(**changes))]

  pretrain, finetune = folders()
  assert folders(title='another', name='other') == [pretrain, finetune]
  assert pretrain.startswith('pretrain/drp-debug-')
  assert finetune.startswith('finetune/dmcr-walker_run/drp-debug-seed0-')
  # Other data is another pre-training, and so another fine-tuning.
  for changes in (
    {'shards_dir': 'shards/other'},
    {'pretrain': ('optim.lr=0.1',)},
  ):
    changed = folders(**changes)
    assert changed[0] != pretrain and changed[1] != finetune
  for changes in ({'seeds': (1,)}, {'finetune': ('optim.lr=0.1',)}):
    changed = folders(**changes)
    assert changed[0] == pretrain and changed[1] != finetune


def test_what_a_system_loads():
  def needs(system):
    (cell,) = study_runs.cells(_small(systems=(system,)))
    return cell.run.needs or '', cell.run.shards_dir

  assert needs('drp')[0].startswith('pretrain/drp-')
  assert needs('without_dynamics')[0] == needs('drp')[0]
  assert needs('ipv_without_dynamics')[0].startswith('pretrain/ipv-')
  assert needs('mlp_projection')[0] == needs('drp')[0]
  assert needs('without_inter')[0].startswith('pretrain/without_inter-')
  for system in ('dreamerv2', 'dreamerv3', 'without_pretraining'):
    assert needs(system)[0] == ''
  # Their flow is scaled by the data, which their pre-training does not tell.
  taking = {s for s in systems.SYSTEMS if needs(s)[1] is not None}
  assert taking == {'without_pretraining', 'after_ipv'}


def test_the_scale_of_flow_comes_from_the_shards(tmp_path):
  (tmp_path / 'report.json').write_text('{"flow_scale": 1.25}')
  config = _small(systems=('without_pretraining',), shards_dir=str(tmp_path))
  (run,) = study_runs.runs(config)
  args = study_runs.command(run, tmp_path)
  assert '--config.finetune.flow_scale=1.25' in args


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'systems': ('drp', 'dpr')}, r"config\.systems has 'dpr'.*'drp'"),
    ({'presets': ('huge',)}, r"config\.presets has 'huge'.*'nano'"),
    ({'tasks': ('walker_run',)}, r"config\.tasks has 'walker_run'.*dmcr/"),
    ({'tasks': ()}, r'config\.tasks is empty'),
    ({'finetune': ('optim.lrr=1',)}, r"'optim\.lrr=1' does not fit"),
    ({'pretrain': ('optim.lr=fast',)}, r"'optim\.lr=fast' does not fit"),
  ],
)
def test_wrong_settings_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    study_runs.runs(_small(**changes))


def _finish(run, root, step):
  (root / run.folder / 'checkpoints' / str(step)).mkdir(parents=True)


def test_the_workdir_says_how_far_a_run_is(tmp_path):
  run, _ = study_runs.runs(_small())
  assert study_runs.step(run, tmp_path) is None
  _finish(run, tmp_path, run.num_steps - 1)
  (tmp_path / run.folder / 'checkpoints' / '9.orbax-checkpoint-tmp').mkdir()
  assert study_runs.step(run, tmp_path) == run.num_steps - 1
  assert not study_runs.complete(run, tmp_path)
  _finish(run, tmp_path, run.num_steps)
  assert study_runs.complete(run, tmp_path)


def test_a_dry_run_shows_state_hours_and_commands(tmp_path):
  config = _config('nano', seeds=(0,))
  found = study_runs.runs(config)
  _finish(found[0], tmp_path, found[0].num_steps)
  text = study.describe(config, str(tmp_path))
  assert f'[1/{len(found)}] {found[0].folder}: complete' in text
  assert '[2/7]' in text and '0 of 7_000 agent steps' in text
  for run in found[1:]:
    assert shlex.join(study_runs.command(run, tmp_path)) in text
  # On the Xeon measured for DRP: 100 + 6 000 / 2 updates, 1.5 a second.
  hours = [line for line in text.splitlines() if 'hours left: ' in line]
  assert [line.count('Xeon: 0.6') for line in hours] == [1, 1, 0, 0, 0, 0]
  assert 'Xeon: 1.1 for 2 runs, unknown for 4' in text
  assert 'H100, at least: unknown' in text
  assert '3 pre-trainings and 4 fine-tunings' in text


def test_hours_are_also_estimated_from_the_runs_that_are_there(tmp_path):
  config = _config('nano')
  runs = study_runs.runs(config)
  ipv = next(run for run in runs if run.config.agent == 'ipv')
  (tmp_path / ipv.folder).mkdir(parents=True)
  lines = [
    {'step': i, 'wall_time': 0.0, 'time/steps_per_second': rate}
    for i, rate in enumerate((0.01, 2.0, 2.0))
  ]
  text = ''.join(f'{json.dumps(line)}\n' for line in lines)
  (tmp_path / ipv.folder / 'metrics.jsonl').write_text(text)
  (rate,) = study_runs.seen(runs, tmp_path)
  assert (rate.agent, rate.stage, rate.rate) == ('ipv', 'pretrain', 2.0)
  expected = ipv.num_steps / 2.0 / 3600
  assert study_runs.hours(ipv, [rate]) == pytest.approx(expected)
  assert study_runs.hours(runs[0], [rate]) is None


def test_folders_begun_with_other_defaults_are_refused(tmp_path):
  config = _small(systems=('dreamerv2',))
  (run,) = study_runs.runs(config)
  folder = tmp_path / run.folder
  folder.mkdir(parents=True)
  old = json.loads(run.config.to_json())
  del old['adapter']  # a key that the run did not know yet
  (folder / 'config.json').write_text(json.dumps(old))
  assert study_runs.changes(run, tmp_path) == []
  old['rssm']['hidden'] = 99
  (folder / 'config.json').write_text(json.dumps(old))
  with pytest.raises(ValueError, match=r'rssm\.hidden 99 -> 16'):
    study.run_study(config, str(tmp_path), 1)


def test_nothing_begins_without_shards(tmp_path):
  for system in ('drp', 'without_pretraining'):
    config = _small(systems=(system,), shards_dir='')
    with pytest.raises(ValueError, match=r"config\.shards_dir=''.*finished"):
      study.run_study(config, str(tmp_path), 1)
  assert list(tmp_path.iterdir()) == []


def test_the_index_keeps_what_another_preset_ran(tmp_path):
  study_index.write(_small(presets=('debug',)), tmp_path)
  study_index.write(_small(presets=('nano',), seeds=(0, 1)), tmp_path)
  other = _small(presets=('nano',), finetune=('optim.lr=0.1',))
  study_index.write(other, tmp_path)
  (found,) = study_index.read(tmp_path)
  assert [(row['preset'], row['seed']) for row in found['runs']] == [
    ('debug', 0),
    ('nano', 0),
    ('nano', 1),
  ]
  folders = {cell.run.folder for cell in study_runs.cells(other)}
  assert found['runs'][1]['folder'] in folders


# What is run below are small programs that leave a file when they are complete.


def _job(root, name, program, needs=None):
  done = root / name / 'done'
  code = f'import os, pathlib, sys, time\nroot = pathlib.Path({str(root)!r})\n'
  return study.Job(
    name,
    [
      sys.executable,
      '-S',
      '-c',
      f'{code}{program}\n(root / {name!r} / "done").touch()',
    ],
    needs,
    done.exists,
  )


_NOTE = 'open(root / "order", "a").write({!r} + "\\n")'


def _order(root):
  return (root / 'order').read_text().split()


def test_jobs_run_in_order_each_after_what_it_needs(tmp_path):
  jobs = [
    _job(tmp_path, 'b', _NOTE.format('b'), needs='c'),
    _job(tmp_path, 'a', _NOTE.format('a')),
    _job(tmp_path, 'c', _NOTE.format('c')),
  ]
  said = []
  queue = study.Queue(tmp_path, 1, say=said.append)
  assert queue.run(jobs)
  assert _order(tmp_path) == ['a', 'c', 'b'] and not queue.failed
  assert said[0] == '0 of 3 runs are complete.'
  assert study.Queue(tmp_path, 1, say=said.append).run(jobs)
  assert _order(tmp_path) == ['a', 'c', 'b']  # nothing is run again
  assert said[-1] == '3 of 3 runs are complete.'


def test_so_many_jobs_run_at_a_time_each_with_its_device(tmp_path):
  """Each waits until two run together; a third would be seen."""
  program = """
name = sys.argv[1]
device = os.environ['CUDA_VISIBLE_DEVICES']
open(root / 'devices', 'a').write(device + '\\n')
(root / f'begun-{name}').touch()
(root / f'running-{name}').touch()
wanted = 2 if name in '01' else 4
deadline = time.monotonic() + 600
while len(list(root.glob('begun-*'))) < wanted:
  assert time.monotonic() < deadline
  time.sleep(0.02)
count = len(list(root.glob('running-*')))
open(root / 'counts', 'a').write(f'{count}\\n')
time.sleep(0.1)
(root / f'running-{name}').unlink()
"""
  jobs = [_job(tmp_path, str(i), program) for i in range(4)]
  for i, job in enumerate(jobs):
    job.args.append(str(i))
  queue = study.Queue(tmp_path, 2, devices=('5', '7'), say=lambda _: None)
  assert queue.run(jobs) and not queue.failed
  counts = [int(x) for x in (tmp_path / 'counts').read_text().split()]
  assert len(counts) == 4 and max(counts) <= 2
  devices = (tmp_path / 'devices').read_text().split()
  assert sorted(devices) == ['5', '5', '7', '7']


def test_a_failure_is_reported_and_the_others_go_on(tmp_path):
  fail = 'print("noise\\n" * 30 + "the reason", file=sys.stderr); sys.exit(3)'
  jobs = [
    _job(tmp_path, 'bad', fail),
    _job(tmp_path, 'child', _NOTE.format('child'), needs='bad'),
    _job(tmp_path, 'grandchild', '', needs='child'),
    _job(tmp_path, 'empty', 'os._exit(0)'),
    _job(tmp_path, 'good', _NOTE.format('good')),
  ]
  said = []
  queue = study.Queue(tmp_path, 1, say=said.append)
  assert queue.run(jobs)
  assert _order(tmp_path) == ['good']
  assert list(queue.failed) == ['bad', 'child', 'grandchild', 'empty']
  assert queue.failed['bad'].startswith('exit code 3')
  assert queue.failed['child'] == 'needs bad, which failed'
  assert 'not complete' in queue.failed['empty']
  (tail,) = [text for text in said if 'the reason' in text]
  assert tail.count('noise') == 14 and str(tmp_path / 'bad' / 'log.txt') in tail
  # The next attempt shows what it wrote itself, and mends what it can.
  mended = [_job(tmp_path, 'bad', ''), *jobs[1:3]]
  again = study.Queue(tmp_path, 1, say=said.append)
  assert again.run(mended) and not again.failed
  assert 'the reason' in (tmp_path / 'bad' / 'log.txt').read_text()


def test_sigterm_lets_the_runs_save_and_begins_no_more(tmp_path):
  program = """
import signal
def save(*_):
  (root / 'saved').touch()
  os._exit(0)
signal.signal(signal.SIGTERM, save)
os.kill(os.getppid(), signal.SIGTERM)
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(3600)
"""
  jobs = [
    _job(tmp_path, 'running', program),
    _job(tmp_path, 'next', _NOTE.format('next')),
  ]
  before = signal.getsignal(signal.SIGTERM)
  queue = study.Queue(tmp_path, 1, say=lambda _: None)
  assert not queue.run(jobs)
  assert (tmp_path / 'saved').exists() and not queue.failed
  assert not (tmp_path / 'order').exists()
  assert signal.getsignal(signal.SIGTERM) == before


def _command(module, *args):
  done = subprocess.run(
    [sys.executable, '-m', module, *args],
    cwd=_ROOT,
    env={
      **os.environ,
      'XLA_FLAGS': os.environ['XLA_FLAGS']
      + ' --xla_force_host_platform_device_count=1',
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_the_command_chooses_presets_and_seeds(tmp_path):
  text = _command(
    'experiments.study',
    '--config=configs/studies/paper.py:fig5b',
    '--preset=nano',
    '--preset=small',
    '--config.seeds=(0, 7)',
    '--dry-run',
    f'--workdir={tmp_path}',
  )
  assert '6 pre-trainings and 24 fine-tunings' in text
  assert 'drp-small-seed7-' in text and 'ipv-nano-seed0-' in text
  assert '--config.data.shards_dir=<shards>' in text.replace("'", '')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_study_of_debug_runs_ends_in_a_page(real_shards, tmp_path):
  args = (
    '--config=configs/studies/paper.py:fig7',
    '--preset=debug',
    f'--config.shards_dir={real_shards}',
    '--config.seeds=(0,)',
    "--config.tasks=('dmcr/walker_run',)",
    "--config.systems=('drp', 'without_pretraining')",
    f'--workdir={tmp_path}',
  )
  text = _command('experiments.study', *args, '--jobs=2')
  assert 'fig7 is complete' in text and text.count('Complete: ') == 3
  text = _command('experiments.study', *args)
  assert '3 of 3 runs are complete.' in text and 'Begun' not in text
  text = _command('experiments.study', *args, '--dry-run')
  assert 'as here: 0.0' in text
  page = _command('experiments.plot_results', f'--workdir={tmp_path}').strip()
  assert page == str(tmp_path / 'results' / 'report.html')
  table = pathlib.Path(page).with_name('fig7_scores.csv').read_text()
  assert table.count(',1,') >= 2 and 'without_pretraining' in table


@pytest.mark.parametrize('stage', ['pretrain', 'dmcr'])
@pytest.mark.parametrize('chip, chips', [('TPU v5e', 4), ('H100 SXM', 1)])
def test_bounds_of_accelerators_are_the_compilers(stage, chip, chips):
  path = _ROOT / 'benchmarks' / 'results' / 'aot_compile.json'
  steps = json.loads(path.read_text())['results']
  (milliseconds,) = {
    max(estimate['memory'], estimate['arithmetic'])
    for step in steps
    for estimate in step['estimates']
    if (step['stage'], step['preset']) == (stage, 'paper')
    and (estimate['chip'], estimate['chips']) == (chip, chips)
    and estimate['fits']
  }
  (known,) = (
    rate
    for rate in throughput.KNOWN
    if rate.hardware.endswith('at least')
    and chip.split(' ')[0] in rate.hardware
    and rate.stage == {'dmcr': 'finetune'}.get(stage, stage)
  )
  assert 1000 / known.rate == pytest.approx(milliseconds, rel=0.03)
