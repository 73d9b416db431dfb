"""Tests of the results of studies: their numbers, pictures, files and page."""

import csv
import html.parser
import xml.etree.ElementTree as ET

import browser
import numpy as np
import pytest
from PIL import Image

from configs.studies import paper, printed
from drp_jax.runs import episode_table
from experiments import (
  plot_results,
  score_statistics,
  study_index,
  study_results,
  study_runs,
)

_EPISODES = 2
_EVALUATIONS = 4


class _Page(html.parser.HTMLParser):
  """The tables of a page, by the title of their section: lists of rows."""

  def __init__(self, text):
    super().__init__()
    self.tables, self._tag, self._title = {}, '', ''
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    del attrs
    self._tag = tag
    if tag == 'h2':
      self._title = ''
    elif tag == 'table':
      self.tables.setdefault(self._title, []).append([])
    elif tag == 'tr':
      self.tables[self._title][-1].append([])

  def handle_endtag(self, tag):
    del tag
    self._tag = ''

  def handle_data(self, data):
    if self._tag == 'h2':
      self._title += data
    elif self._tag in ('td', 'th'):
      self.tables[self._title][-1][-1].append(data)


def _score(system_index, task_index, seed, evaluation):
  """A made-up mean return, which rises, and falls from system to system."""
  return 100 * (evaluation + 1) - 20 * system_index + 5 * task_index + 10 * seed


def _record(study, root, seed_evaluations):
  """Writes workdirs as runs leave them, with made-up scores.

  Args:
    study: its config.
    root: of the study.
    seed_evaluations: seed to how many evaluations its runs have had.
  """
  study_index.write(study, root)
  for cell in study_runs.cells(study):
    count = seed_evaluations.get(cell.seed, 0)
    if not count:
      continue
    folder = root / cell.run.folder
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text(cell.run.config.to_json())
    episode_table.resume(folder, -1)
    c = cell.run.config
    for evaluation in range(count):
      step = c.finetune.num_steps * (evaluation + 1) // _EVALUATIONS
      mean = _score(
        study.systems.index(cell.system),
        study.tasks.index(cell.task),
        cell.seed,
        evaluation,
      )
      episode_table.append(
        folder,
        [
          {
            'step': step,
            'env_step': step * c.env.action_repeat,
            'episode': episode,
            'seed': 0,
            'return': mean + (1, -1)[episode],
            'success': episode if evaluation > 1 else 0,
            'length': 500,
          }
          for episode in range(_EPISODES)
        ],
      )


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """Two studies: three complete seeds and one half done; two of two suites."""
  root = tmp_path_factory.mktemp('studies')
  study = paper.get_config('table1')
  study.seeds = (0, 1, 2, 3)
  _record(study, root, {0: 4, 1: 4, 2: 4, 3: 2})
  study = paper.get_config('fig13')
  study.seeds, study.presets = (0, 1), ('nano',)
  _record(study, root, {0: 4, 1: 4})
  out = root / 'results'
  page = plot_results.write(root, out)
  return root, out, page.read_text()


def test_results_are_what_the_workdirs_say(written):
  root, _, _ = written
  fig13_study, table1_study = study_index.read(root)
  results = study_results.read(table1_study, root)
  assert len(results) == 4 * 2 * 4
  assert sum(result.complete for result in results) == 4 * 2 * 3
  result = results[0]
  assert (result.system, result.task, result.seed) == (
    'drp',
    'dmcr/walker_run',
    0,
  )
  np.testing.assert_array_equal(result.env_steps, 2 * result.steps)
  np.testing.assert_allclose(result.returns, [100, 200, 300, 400])
  np.testing.assert_allclose(result.return_stds, 1)
  np.testing.assert_allclose(result.normalized, result.returns / 1000)
  assert (result.score, result.smooth_score) == (400, 300)
  drawer = next(
    result
    for result in study_results.read(fig13_study, root)
    if result.suite == 'metaworld'
  )
  np.testing.assert_allclose(drawer.values, [0, 0, 50, 50])
  np.testing.assert_array_equal(drawer.env_steps, drawer.steps)


def test_curves_meet_on_common_steps(written):
  root, _, _ = written
  _, study = study_index.read(root)
  whole, half = (
    result
    for result in study_results.read(study, root)
    if (result.system, result.task) == ('drp', 'dmcr/walker_run')
    and result.seed in (0, 3)
  )
  grid, values = study_results.on_common_steps([whole, half])
  np.testing.assert_array_equal(grid, whole.env_steps)
  np.testing.assert_allclose(values[0], [100, 200, 300, 400])
  np.testing.assert_allclose(values[1], [130, 230, np.nan, np.nan])


def test_tables_stand_beside_the_papers_numbers(written):
  tables = _Page(written[2]).tables[
    'Table 1: pre-trained dynamics model, preset paper'
  ]
  scores, drops = tables
  assert scores[0][:5] == [
    'system',
    'Walker Run: paper',
    'Walker Run: ours',
    'Walker Run: last 3',
    'Walker Run: seeds',
  ]
  # Seeds 0, 1, 2 give 400, 410, 420; the unfinished one does not count.
  assert scores[1] == [
    'DRP',
    '681 ± 39',
    '410 ± 8',
    '310 ± 8',
    '3',
    '796 ± 114',
    '415 ± 8',
    '315 ± 8',
    '3',
  ]
  assert [row[0] for row in scores[1:]] == [
    'DRP',
    'DRP w/o dyn.',
    'IPV',
    'IPV w/o dyn.',
  ]
  assert drops[1] == ['DRP w/o dyn.', '10.0 %', '4.9 %', '11.1 %', '4.8 %']


def test_what_was_not_run_is_a_dash(written):
  tables = _Page(written[2]).tables
  (scores,) = tables['Table 3: mask ratio ρ']
  assert scores[1:] == [
    ['ρ = 0.3', '648 ± 42', '-', '-', '-'],
    ['ρ = 0.5', '681 ± 39', '-', '-', '-'],
    ['ρ = 0.7', '660 ± 47', '-', '-', '-'],
  ]
  assert {'Table 2: keypoints K', 'Table 4: patch size P'} <= tables.keys()
  # No numbers of the paper where it prints none.
  (scores,) = tables['Fig. 13: adapter, preset nano']
  assert 'paper' not in ' '.join(scores[0])


def _rows(path):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_every_seed_is_in_the_csv_files(written):
  _, out, _ = written
  scores = _rows(out / 'table1_scores.csv')
  assert len(scores) == 4 * 2 * 4
  row = next(
    row
    for row in scores
    if (row['system'], row['task'], row['seed'])
    == ('ipv', 'dmcr/hopper_stand', '2')
  )
  last = _score(2, 1, 2, 3)
  assert float(row['last']) == last and row['complete'] == '1'
  assert float(row['mean_of_last_3']) == last - 100
  evaluations = _rows(out / 'table1_evaluations.csv')
  assert len(evaluations) == 4 * 2 * (3 * 4 + 2)
  assert {row['episodes'] for row in evaluations} == {str(_EPISODES)}


def test_pictures_are_there_in_both_formats(written):
  _, out, page = written
  names = [
    f'{study}{kind}'
    for study in ('table1-paper', 'fig13-nano')
    for kind in ('', '-iqm', '-intervals')
  ]
  assert {path.stem for path in out.glob('*.svg')} == set(names)
  assert page.count('data:image/svg+xml') == len(names)
  for name in names:
    ET.fromstring((out / f'{name}.svg').read_bytes())
    picture = np.asarray(Image.open(out / f'{name}.png').convert('RGB'))
    assert picture.shape[1] > 600 and picture.std() > 5


def test_only_what_is_scored_alike_is_averaged(written):
  _, out, _ = written
  averaged = (out / 'table1-paper.svg').read_text()
  assert '<!-- Average -->' in averaged and '<!-- Walker Run -->' in averaged
  assert '<!-- Average -->' not in (out / 'fig13-nano.svg').read_text()


def test_a_folder_without_studies_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='holds no study'):
    plot_results.write(tmp_path, tmp_path / 'results')


def test_a_study_that_has_only_begun_has_a_page(tmp_path):
  study_index.write(paper.get_config('table1'), tmp_path)
  page = plot_results.write(tmp_path, tmp_path / 'out').read_text()
  assert 'No run was evaluated yet.' in page


def test_interquartile_means_by_hand():
  scores = np.array(
    [[0.0], [1.0], [2.0], [3.0], [100.0], [200.0], [4.0], [5.0]]
  )
  point, low, high = score_statistics.iqm(scores)
  assert point == np.mean([2, 3, 4, 5])  # the middle half of eight
  assert low <= point <= high and low < high
  assert score_statistics.iqm(scores) == (point, low, high)


def test_seeds_are_drawn_within_each_task():
  """Tasks that differ a lot do not widen the interval of seeds that agree."""
  scores = np.array([[1.0, 9.0], [1.0, 9.0], [1.0, 9.0]])
  assert score_statistics.iqm(scores) == (5, 5, 5)


def test_iqm_curves_are_the_iqm_of_every_step():
  rng = np.random.default_rng(0)
  scores = rng.random([5, 2, 3])
  curve = score_statistics.iqm_curve(scores)
  assert curve.shape == (3, 3)
  for i in range(3):
    point, _, _ = score_statistics.iqm(scores[..., i])
    assert curve[i, 0] == pytest.approx(point)
  assert (curve[:, 1] <= curve[:, 0]).all() and (
    curve[:, 2] >= curve[:, 0]
  ).all()


@pytest.mark.parametrize(
  ('ours', 'other', 'chance'),
  [
    ([2.0, 3.0], [0.0, 1.0], 1.0),
    ([0.0, 1.0], [2.0, 3.0], 0.0),
    ([1.0, 1.0], [1.0, 1.0], 0.5),  # ties count half
    ([1.0, 3.0], [0.0, 2.0], 0.75),
  ],
)
def test_chances_of_improvement_by_hand(ours, other, chance):
  ours, other = np.array(ours)[:, None], np.array(other)[:, None]
  point, low, high = score_statistics.improvement(ours, other)
  assert point == chance and low <= point <= high


def test_the_papers_numbers():
  """Spot checks, and that they agree with each other."""
  walker, hopper = 'dmcr/walker_run', 'dmcr/hopper_stand'
  assert printed.TABLES['table1']['ipv_without_dynamics', hopper] == (628, 134)
  assert printed.TABLES['table2']['keypoints_8', hopper] == (775, 123)
  assert printed.TABLES['table3']['mask_ratio_70', walker] == (660, 47)
  assert printed.TABLES['table4']['patch_12', walker] == (649, 52)
  assert [len(table) for table in printed.TABLES.values()] == [8, 6, 3, 3]
  drp = printed.TABLES['table1']['drp', walker]
  for name, system in (
    ('table2', 'keypoints_16'),
    ('table3', 'mask_ratio_50'),
    ('table4', 'patch_16'),
  ):
    assert printed.TABLES[name][system, walker] == drp == (681, 39)
  for (whole, without), drops in printed.DROPS.items():
    for task, drop in drops.items():
      means = [printed.TABLES['table1'][s, task][0] for s in (whole, without)]
      assert 100 * (1 - means[1] / means[0]) == pytest.approx(drop, abs=0.06)


def test_a_browser_shows_every_picture_and_does_not_complain(written, tmp_path):
  seen = browser.look(written[2], tmp_path)
  assert seen.pictures == [True] * 6
  assert seen.complaints == [] and not seen.too_wide
