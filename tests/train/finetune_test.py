"""Fine-tuning in real environments: all stages, and exact resumption."""

import csv
import functools
import json
import os
import shutil
import signal

import jax
import living
import marching
import numpy as np
import pytest

from configs import finetune_dmcr
from drp_jax.envs import driver, gl
from drp_jax.runs import checkpoint, episode_table, lock, logger
from drp_jax.runs import workdir as workdir_lib
from drp_jax.systems import registry
from drp_jax.train import evaluate, finetune, rollout, updater
from experiments import finetune_work, record_result

_LOST_EPISODE, _LOST_AT = 3, 7  # an environment dies there
_KILLED_AT = 50  # steps of the driver: in the middle of the third round


def _config(**changes):
  """Two environments, rounds of 20 steps of each."""
  config = finetune_dmcr.get_config('debug')
  config.task = 'walker_stand'
  config.env.num_envs = 2
  config.finetune.num_steps = 100
  config.finetune.eval_episodes = 2
  config.finetune.checkpoint_every = 60
  config.update(changes)
  return config


def _tell(envs):
  """SIGTERM to this process and to those of environments."""
  for pid in (*envs.pids, os.getpid()):
    os.kill(pid, signal.SIGTERM)


class _Watched(driver.Driver):
  """Does something before one of its steps."""

  def watch(self, step, action):
    self._left, self._action = step, action

  def send(self, actions):
    self._left -= 1
    if self._left == 0:
      self._action()
    super().send(actions)


def _run(config, workdir, copy_to=None, told_at=None, hangs=None, opened=None):
  """Runs in `workdir`, which is copied in the middle, as a kill leaves it.

  Args:
    config: of the run.
    workdir: of the run.
    copy_to: where the copy goes, if anywhere.
    told_at: (0 for training, 1 for evaluation, step of those environments) to
      be told to end at, by SIGTERM to all processes.
    hangs: (seed, step) at which an environment does, after such SIGTERMs.
    opened: list that both sets of environments are added to.
  """
  seed = rollout.episode_seed(config.seed, _LOST_EPISODE)

  def make_env():
    env = finetune_work.make_env(config)
    env = marching.Fragile(env, {seed: 'die'}, _LOST_AT)
    if hangs is None:
      return env
    return marching.Hanging(env, {hangs[0]: 'sleep'}, hangs[1], tell=True)

  def make_envs():
    envs = _Watched(make_env, config.env.num_envs)
    envs.watch(_KILLED_AT, copy if not opened else lambda: None)
    if told_at is not None and len(opened) == told_at[0]:
      envs.watch(told_at[1], functools.partial(_tell, envs))
    opened.append(envs)
    return envs

  def copy():
    if copy_to is not None:
      shutil.copytree(workdir, copy_to)

  opened = [] if opened is None else opened
  extractor = functools.partial(finetune_work.make_extractor, config)
  state = finetune.finetune(config, workdir, make_envs, extractor)
  assert len(opened) == 2
  return jax.device_get(state)


def _timeless(workdir):
  return [
    {k: v for k, v in line.items() if 'time' not in k}
    for line in logger.read_metrics(workdir)
  ]


@pytest.fixture(autouse=True)
def _forget_compiled_functions():
  """As conftest.py's, after each test: runs compile a lot, and are many."""
  yield
  jax.clear_caches()


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """The final state, the workdir, and what a kill would have left of it."""
  gl.select_backend()  # once, not in every process
  workdir = tmp_path_factory.mktemp('unbroken')
  killed = tmp_path_factory.mktemp('killed') / 'workdir'
  return _run(_config(), workdir, killed), workdir, killed


def test_a_resumed_run_equals_an_unbroken_one(unbroken):
  state, workdir, killed = unbroken
  assert checkpoint.Checkpoints(killed).latest_step() == 67
  # Of what came after the checkpoint there is something to be taken back.
  assert _timeless(killed)[-1]['step'] > 67
  resumed = _run(_config(), killed)
  jax.tree.map(np.testing.assert_array_equal, state, resumed)
  assert _timeless(workdir) == _timeless(killed)
  assert episode_table.read(workdir) == episode_table.read(killed)


@pytest.fixture(scope='module')
def told(tmp_path_factory):
  """Exit code and workdir of a run that was told to end.

  In the first round, while the step is being compiled.
  """
  workdir = tmp_path_factory.mktemp('told')
  with pytest.raises(SystemExit) as end:
    _run(_config(), workdir, told_at=(0, 10))
  return end.value.code, workdir


def test_a_run_that_is_told_to_end_saves_at_once(told):
  code, workdir = told
  assert code == 0
  assert checkpoint.Checkpoints(workdir).latest_step() == 20


@pytest.mark.slow
@pytest.mark.parametrize(
  ('told_at', 'step'), [((0, 10), 20), ((0, 50), 87), ((1, 5), 40)]
)
def test_a_run_that_is_told_to_end_goes_on_from_there(
  unbroken, tmp_path, told_at, step
):
  """In a round of random actions, of the policy's, and in an evaluation."""
  state, workdir, _ = unbroken
  with pytest.raises(SystemExit) as end:
    _run(_config(), tmp_path, told_at=told_at)
  assert end.value.code == 0
  assert checkpoint.Checkpoints(tmp_path).latest_step() == step
  resumed = _run(_config(), tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, resumed)
  assert _timeless(workdir) == _timeless(tmp_path)
  assert episode_table.read(workdir) == episode_table.read(tmp_path)


def _train_seed(number):
  return rollout.episode_seed(_config().seed, number)


@pytest.mark.parametrize(
  ('hangs', 'step'),
  [
    # Of the second round only one episode was left by then.
    ((_train_seed(2), 12), 40 + 12 + _LOST_AT),
    pytest.param((_train_seed(0), 0), 0, marks=pytest.mark.slow),
    pytest.param((_train_seed(5), 1), 69, marks=pytest.mark.slow),
    pytest.param(
      (rollout.episode_seed(evaluate._SEED, 1), 5), 40, marks=pytest.mark.slow
    ),
  ],
)
def test_a_run_that_waits_for_what_hangs_is_told_to_end(
  unbroken, tmp_path, hangs, step
):
  """It saves, ends, and goes on to the numbers of an unbroken one."""
  state, workdir, _ = unbroken
  with pytest.raises(SystemExit) as end:
    _run(_config(), tmp_path, hangs=hangs)
  assert end.value.code == 0
  assert checkpoint.Checkpoints(tmp_path).latest_step() == step
  resumed = _run(_config(), tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, resumed)
  assert _timeless(workdir) == _timeless(tmp_path)
  assert episode_table.read(workdir) == episode_table.read(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('update', [1, 4])
def test_a_run_that_is_told_to_end_in_an_update_goes_on(
  unbroken, tmp_path, monkeypatch, update
):
  """Between rounds, and in the middle of one."""
  state, workdir, _ = unbroken
  original, opened = updater.Updater.update, []

  def told(learning):
    if learning.updates + 1 == update:
      _tell(opened[0])
    original(learning)

  with monkeypatch.context() as patch:
    patch.setattr(updater.Updater, 'update', told)
    with pytest.raises(SystemExit) as end:
      _run(_config(), tmp_path, opened=opened)
  assert end.value.code == 0
  resumed = _run(_config(), tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, resumed)
  assert _timeless(workdir) == _timeless(tmp_path)
  assert episode_table.read(workdir) == episode_table.read(tmp_path)


def test_a_run_that_waits_for_its_environment_to_open_is_told_to_end(tmp_path):
  """There is nothing to save, and no process is left."""
  before, parent = set(living.descendants(os.getpid())), os.getpid()

  def open_env(config):
    del config
    os.kill(parent, signal.SIGTERM)
    marching.hang('lock')

  with pytest.raises(SystemExit) as end:
    finetune_work.finetune(_config(), str(tmp_path), open_env)
  assert end.value.code == 0
  assert not set(living.descendants(os.getpid())) - before


def test_what_a_run_leaves(unbroken):
  """Rounds end after 40, 67 and 107 steps: an environment died in the second.

  It began 7 steps. There is an update at first, then at steps 50, 60, ... 100.
  """
  state, workdir, _ = unbroken
  assert int(state.step) == 7
  lines = logger.read_metrics(workdir)
  episodes = [line for line in lines if 'episode/return' in line]
  assert [line['episode/number'] for line in episodes] == [1, 2, 3, 5, 6]
  assert [line['step'] for line in episodes] == [40, 40, 67, 107, 107]
  assert [line['episode/dropped'] for line in episodes] == [0, 0, 1, 1, 1]
  assert min(line['episode/return'] for line in episodes) > 0
  assert {line['episode/length'] for line in episodes} == {20}
  assert all(line['env_step'] == 2 * line['step'] for line in lines)
  frames = np.load(workdir / finetune.EPISODE_FILE)
  assert frames.shape == (21, 64, 64, 3) and frames.std() > 0


def test_each_evaluation_episode_has_a_row(unbroken):
  _, workdir, _ = unbroken
  lines = [x for x in logger.read_metrics(workdir) if 'eval/return' in x]
  assert [line['step'] for line in lines] == [40, 67, 107]
  rows = episode_table.read(workdir)
  assert len(rows) == 6
  for i, line in enumerate(lines):
    own = rows[2 * i : 2 * i + 2]
    assert [int(row['step']) for row in own] == 2 * [line['step']]
    assert [int(row['env_step']) for row in own] == 2 * [2 * line['step']]
    seeds = [rollout.episode_seed(evaluate._SEED, n) for n in range(2)]
    assert [int(row['seed']) for row in own] == seeds
    returns = [float(row['return']) for row in own]
    np.testing.assert_allclose(np.mean(returns), line['eval/return'])
    assert {row['length'] for row in own} == {'20'}
    assert line['eval/dropped'] == 0


def test_a_record_of_the_run(unbroken, tmp_path, monkeypatch):
  _, workdir, _ = unbroken
  monkeypatch.setattr(record_result, '_RESULTS', tmp_path)
  path = record_result.record(str(workdir), 'nano', random_episodes=2)
  rows = list(csv.DictReader(path.open()))
  assert [row['env_step'] for row in rows] == ['80', '134', '214']
  assert float(rows[-1]['return']) > 0
  about = json.loads(path.with_suffix('.json').read_text())
  assert about['random_policy']['mean'] > 0
  assert about['config']['task'] == 'walker_stand'
  assert about['run']['cpu_cores'] >= 1


def test_another_run_does_not_take_over_a_workdir(unbroken, tmp_path):
  """Nothing is opened, and not a byte of the finished run changes."""
  workdir = tmp_path / 'run'
  shutil.copytree(unbroken[1], workdir)
  before = {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}
  config = _config(task='walker_run', seed=7)
  config.finetune.num_steps = 200
  with pytest.raises(
    ValueError,
    match="config.seed 0 -> 7; config.task 'walker_stand' -> 'walker_run'[.] ",
  ):
    finetune.finetune(config, workdir, None, None)
  after = {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}
  (lock_file,) = [p for p in after if p.name == lock.LOCK_FILE]
  assert {**after, lock_file: b''} == {**before, lock_file: b''}


def test_the_number_of_environments_may_change(told, tmp_path):
  """Also in the middle of a round, whose episodes are dropped and counted."""
  workdir = tmp_path / 'run'
  shutil.copytree(told[1], workdir)
  config = _config()
  config.env.num_envs = 1
  config.finetune.num_steps = 40
  _run(config, workdir)
  lines = logger.read_metrics(workdir)
  (episode,) = [line for line in lines if 'episode/return' in line]
  assert (episode['episode/number'], episode['step']) == (3, 40)
  assert episode['episode/dropped'] == 2
  changes = workdir_lib.read_changes(workdir)
  assert {'step': 20, 'key': 'config.env.num_envs', 'old': 2, 'new': 1} in (
    changes
  )
  assert (
    json.loads((workdir / 'config.json').read_text())['env']['num_envs'] == 2
  )


def test_there_must_be_something_to_evaluate(tmp_path):
  config = _config()
  config.finetune.eval_episodes = 0
  with pytest.raises(ValueError, match=r'config\.finetune\.eval_episodes=0'):
    finetune_work.finetune(config, str(tmp_path))


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  """State and workdir of a pre-training before its first step."""
  workdir = tmp_path_factory.mktemp('pretrained')
  config = _config(seed=1)  # so that what is loaded differs
  state = registry.build(config, 1, None).pretraining.init(2.5)
  saved = checkpoint.Checkpoints(workdir)
  saved.save(1, state, {})
  saved.close()
  return jax.device_get(state), workdir


def test_pre_trained_parts_are_loaded_and_others_are_not(pretrained):
  trained, workdir = pretrained
  config = _config(init_from=str(workdir))
  system = registry.build(config, 6, None).system
  loaded = jax.device_get(registry.build(config, 6, None).finetuning.init())
  fresh = jax.device_get(registry.build(_config(), 6, None).finetuning.init())
  for name, params in loaded.params.items():
    same = (
      trained.params[name] if name in system.pretrained else fresh.params[name]
    )
    jax.tree.map(np.testing.assert_array_equal, params, same)
  assert any(
    np.any(x != y)
    for x, y in zip(
      jax.tree.leaves(fresh.params['latent_dynamics']),
      jax.tree.leaves(loaded.params['latent_dynamics']),
      strict=True,
    )
  )
  jax.tree.map(
    np.testing.assert_array_equal, loaded.collections, trained.collections
  )
  assert loaded.collections['constants']['flow_scale'] == 2.5


def test_another_preset_does_not_load(pretrained):
  config = _config(init_from=str(pretrained[1]))
  config.dae.width = 32
  learner = registry.build(config, 6, None).finetuning
  with pytest.raises(ValueError, match='config.init_from=.*does not fit'):
    learner.init()
