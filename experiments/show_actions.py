r"""Probes what the aggregated action knows about motion (Fig. 14).

  python -m experiments.run_preprocess --config=configs/preprocess.py:pushes \
      --config.path=runs/push_videos --config.data.shards_dir=runs/pushes
  python -m experiments.show_actions --workdir=runs/pretrain \
      --shards_dir=runs/pushes --out=runs/see

With Something-Something V2, the paper's three behaviors:

  python -m experiments.show_actions --workdir=runs/pretrain \
      --shards_dir=runs/ssv2 --split=validation --labels=93,94,109 \
      --out=runs/see

A clip is represented by the mean of its a_agg (E10). The command writes
tsne.png and tsne.svg. A t-SNE measures nothing, so it also writes probe.json:
the accuracy of a linear classifier and of nearest neighbors on held-out videos,
in five folds. The controls are the same network untrained, and the mean flow at
the keypoints.

An untrained network passes that test. A harder test uses bodies that no model
was trained on: a_agg and the mean of the local tokens predict the joint
velocities and the actions of every step.

  python -m experiments.run_preprocess \
      --config=configs/preprocess.py:unseen_bodies \
      --config.path=runs/unseen_videos --config.data.shards_dir=runs/unseen
  python -m experiments.show_actions --probe=action --workdir=runs/pretrain \
      --ipv=runs/pretrain_ipv --shards_dir=runs/unseen --out=runs/see

Any shards work whose videos have recordings (`drp_jax/recordings.py`). The
command writes action_probe.json, and the same as tables in action_probe.md: R2
of ridge regression, and the accuracy of a linear classifier of 8 actions. Both
are given for every body and as a mean over bodies, with 95 % intervals over
videos. The controls are the same network untrained, the mean flow at the
keypoints, the mean flow of the image, and the state z of IPV.
"""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from drp_jax import extras, files
from drp_jax.data import shards
from drp_jax.ops import patches
from drp_jax.runs import workdir as workdir_lib
from drp_jax.train import pretrained
from drp_jax.viz import plot_style, scatter
from experiments import action_probe, clip_flags, launch, motion_vectors

FOLDS = 5
NEIGHBORS = 5
_PERPLEXITY = 30.0  #                                           [E10]


def show(
  workdir: str,
  shards_dir: str,
  split: str,
  labels: Sequence[int],
  names: Sequence[str],
  clips_per_label: int,
  out: str,
) -> dict[str, dict[str, list[float]]]:
  """Writes the picture and the scores.

  Args:
    workdir: workdir of a pre-training with an aggregated action.
    shards_dir: shards of clips with labels.
    split: 'train' or 'validation'.
    labels: labels to distinguish; () for all.
    names: names of the labels, in their order; () for their numbers.
    clips_per_label: maximum number of clips, evenly spaced.
    out: folder; created if missing.

  Returns:
    Representation -> `linear` and `neighbors`: accuracy in each fold.

  Raises:
    ValueError: for an unsuitable workdir or shards.
  """
  extras.require('show_actions', 'figures', 'sklearn')
  model = motion_vectors.load(workdir)
  source = shards.open_split(shards_dir, split, model.config.data.clip_length)
  clips, groups, names = _labeled(source, labels, names, clips_per_label)
  vectors = {
    'a_agg': mean_actions(model, clips),
    'a_agg, untrained': mean_actions(pretrained.untrained(model), clips),
    'mean flow': _mean_flow(clips),
  }
  videos = np.array([clip['source_id'].decode() for clip in clips])
  scores = {name: probe(x, groups, videos) for name, x in vectors.items()}
  folder = pathlib.Path(out)
  figure = scatter.draw_groups(
    _tsne(vectors['a_agg']), groups, names, 't-SNE of aggregated actions'
  )
  files.write(folder / 'tsne.svg', plot_style.svg(figure))
  files.write(folder / 'tsne.png', plot_style.png(figure))
  files.write_json(
    folder / 'probe.json',
    {
      'workdir': workdir,
      'shards_dir': shards_dir,
      'split': split,
      'clips': dict(zip(names, np.bincount(groups).tolist(), strict=True)),
      'folds': FOLDS,
      'accuracy': scores,
      'run': workdir_lib.describe(),
    },
  )
  return scores


def _tsne(vectors: np.ndarray) -> np.ndarray:
  """Embeds [N, D] in the plane, [N, 2]."""
  from sklearn import manifold, preprocessing

  x = preprocessing.StandardScaler().fit_transform(vectors)
  perplexity = min(_PERPLEXITY, (len(x) - 1) / 3)
  return manifold.TSNE(perplexity=perplexity, random_state=0).fit_transform(x)


def mean_actions(
  model: pretrained.Pretrained, clips: Sequence[dict]
) -> np.ndarray:
  """Computes one vector per clip: the mean of a_agg over its motion, [N, D]."""
  return motion_vectors.of_tokens(model)(clips)['a_agg'].mean(1)


def probe(
  vectors: np.ndarray, groups: np.ndarray, videos: np.ndarray
) -> dict[str, list[float]]:
  """Measures how well classes can be read from vectors.

  Args:
    vectors: [N, D].
    groups: [N] int, the classes.
    videos: [N], video of each vector; no video is in two folds.

  Returns:
    Accuracy on each held-out fold, of a linear classifier (`linear`) and of
    nearest neighbors (`neighbors`).

  Raises:
    ValueError: if a class has fewer videos than there are folds.
  """
  from sklearn import (
    linear_model,
    model_selection,
    neighbors,
    pipeline,
    preprocessing,
  )

  counts = [len(set(videos[groups == g])) for g in np.unique(groups)]
  if len(counts) < 2 or min(counts) < FOLDS:
    raise ValueError(
      f'A probe needs two classes or more, of at least {FOLDS} videos each; the'
      f' classes have {counts}.'
    )
  folds = model_selection.StratifiedGroupKFold(
    FOLDS, shuffle=True, random_state=0
  )
  classifiers = {
    'linear': linear_model.LogisticRegression(max_iter=5000),
    'neighbors': neighbors.KNeighborsClassifier(NEIGHBORS),
  }
  return {
    name: [
      round(float(accuracy), 4)
      for accuracy in model_selection.cross_val_score(
        pipeline.make_pipeline(preprocessing.StandardScaler(), classifier),
        vectors,
        groups,
        groups=videos,
        cv=folds,
      )
    ]
    for name, classifier in classifiers.items()
  }


def _labeled(source, labels, names, clips_per_label):
  """Returns clips of some labels, the index of each label, names of labels."""
  of_clip = np.array([int(source[i]['label']) for i in range(len(source))])
  there = sorted(set(of_clip.tolist()) - {-1})
  labels = list(labels) or there
  missing = sorted(set(labels) - set(there))
  if missing or len(labels) < 2:
    raise ValueError(
      f'--labels={labels} must be two or more of those of the clips, {there}'
      ' (-1 is none).'
    )
  names = list(names) or [str(label) for label in labels]
  if len(names) != len(labels):
    raise ValueError(f'--names={names} must be one for each of {labels}.')
  clips, groups = [], []
  for number, label in enumerate(labels):
    of_label = np.flatnonzero(of_clip == label)
    count = min(clips_per_label, len(of_label))
    places = np.linspace(0, len(of_label) - 1, count).round().astype(int)
    clips += [source[int(i)] for i in of_label[places]]
    groups += [number] * count
  return clips, np.array(groups), names


def _mean_flow(clips: Sequence[dict]) -> np.ndarray:
  """Computes mean flow at visible keypoints, and mean speed: [N, 3]."""
  found = []
  for clip in clips:
    at_points = np.asarray(patches.crop(clip['flow'], clip['points'], 1))[1:]
    flow = at_points.reshape(*at_points.shape[:2], 2).astype(np.float32)
    flow = flow[clip['visible'][1:]] if clip['visible'][1:].any() else flow
    flow = flow.reshape(-1, 2)
    speed = np.linalg.norm(flow, axis=-1).mean()
    found.append([*flow.mean(0), speed])
  return np.array(found)


def main() -> None:
  if _PROBE.value == 'action':
    record = action_probe.show(
      _WORKDIR.value,
      _IPV.value,
      _FLAGS.shards_dir.value,
      _FLAGS.split.value,
      _FLAGS.clips.value,
      _FLAGS.out.value,
    )
    print(action_probe.table(record))
    return
  scores = show(
    _WORKDIR.value,
    _FLAGS.shards_dir.value,
    _FLAGS.split.value,
    [int(label) for label in _LABELS.value],
    _NAMES.value,
    _FLAGS.clips.value,
    _FLAGS.out.value,
  )
  means = {
    name: {kind: round(float(np.mean(x)), 3) for kind, x in found.items()}
    for name, found in scores.items()
  }
  print(json.dumps(means, indent=2))


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a pre-training.')
  _FLAGS = clip_flags.define(
    'train', 200, 'Maximum number of clips per label or body.', least=5
  )
  _PROBE = flags.DEFINE_enum(
    'probe',
    'label',
    ['label', 'action'],
    'What to predict: labels of clips, or recorded actions of steps.',
  )
  _IPV = flags.DEFINE_string(
    'ipv', '', 'Workdir of IPV, a control of --probe=action.'
  )
  _LABELS = flags.DEFINE_list('labels', [], 'Numbers of labels; default: all.')
  _NAMES = flags.DEFINE_list('names', [], 'Names of the labels, in order.')
  flags.mark_flags_as_required(['workdir'])
  launch.run(main)
