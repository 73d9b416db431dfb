"""The page that the demo leaves: what was seen, learned and measured.

Every sentence that judges is made from the numbers beside it, see
demo_verdicts.py.
"""

import functools
import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from drp_jax.data import report as data_report
from drp_jax.data import shards
from drp_jax.envs import dmcr
from drp_jax.ops import images, noise, patches
from drp_jax.runs import checkpoint, logger
from drp_jax.systems import registry
from drp_jax.train import evaluate, finetune
from drp_jax.viz import curves, overlay, report, video
from experiments import demo_verdicts, finetune_work

_KEPT = 0.9  # share of keypoints that a clip worth showing keeps     [ours]
_CLIPS = 4  # predicted clips on the page
_EPISODE_STRIDE, _EPISODE_FPS = 4, 12
_MAE = 'squared L2 norm per hidden patch'
_PRETRAIN_LOSSES = {
  'loss/mae': f'{_MAE} (Eq. 5)',
  'loss/image_z': 'image of L_dyn (Eq. 6)',
  'loss/kl_z': 'KL of z, nats (Eq. 6)',
}
_FINETUNE_LOSSES = {
  'loss/mae': f'{_MAE} (Eq. 5)',
  'loss/image': 'image of L_action (Eq. 9)',
  'loss/kl_s': 'KL of s, nats (Eq. 9)',
  'loss/aux_reward': 'squared error, reward (Eq. 9)',
  'loss/critic': 'critic (Eq. 11)',
  'behavior/entropy': "actor's entropy, nats",
}

Metrics = list[dict[str, float]]


def write(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
  """Writes `report.html` into the demo's workdir.

  Args:
    config: configs/demo.py with its folders filled in.
    folder: the workdir, in which the other stages are complete.
  """
  pretraining = logger.read_metrics(folder / 'pretrain')
  finetuning = logger.read_metrics(folder / 'finetune')
  env = finetune_work.make_env(config.finetune, draw=False)
  random = evaluate.random_returns(env, config.random_episodes)
  env.close()
  sections = [
    _summary(pretraining, finetuning, random),
    _videos(config),
    _pretraining(config, folder, pretraining),
    _finetuning(config, folder, finetuning, random),
    _what_ran(config, folder, finetuning),
  ]
  report.write_report(
    folder / 'report.html',
    'drp_jax: from video files to an acting agent',
    sections,
    'Atomic actions taken from videos, a world model pre-trained on them, and'
    f' an agent fine-tuned on {config.finetune.task}, in minutes: preset'
    f' {config.finetune.preset}, seed {config.finetune.seed}.',
  )


def _summary(
  pretraining: Metrics, finetuning: Metrics, random: np.ndarray
) -> report.Section:
  model = _with(pretraining, 'held_out/mae')[-1]
  agent = _with(finetuning, 'eval/return')
  mae, zero_flow, mean_patch, predicted, copied = (
    model[f'held_out/{name}']
    for name in (
      'mae',
      'mae_zero_flow',
      'mae_mean_patch',
      'open_loop_mse',
      'copy_last_mse',
    )
  )
  first, last = (
    (agent[index]['eval/return'], agent[index]['eval/return_std'])
    for index in (0, -1)
  )
  return report.Section(
    'At a glance',
    [
      report.Facts(
        [
          ('hidden patches: model | no motion', f'{mae:.3g} | {zero_flow:.3g}'),
          ('open loop: model | copying', f'{predicted:.3g} | {copied:.3g}'),
          ('return: agent | random', f'{last[0]:.4g} | {random.mean():.4g}'),
        ]
      ),
      report.Text(demo_verdicts.mae(mae, zero_flow, mean_patch)),
      report.Text(demo_verdicts.open_loop(predicted, copied)),
      report.Text(demo_verdicts.returns(first, last, random)),
    ],
  )


def _videos(config: ml_collections.ConfigDict) -> report.Section:
  """One clip of every subfolder of the videos, drawn into."""
  dae = config.pretrain.dae
  clips = [
    report.Clip(
      video.encode_webp(_panels(example, dae), fps=6),
      f'A clip of {name}: frames, mask and tracks, optical flow, patches',
      f'{name}, frames {example["first_frame"]} to'
      f' {example["first_frame"] + example["num_frames"] - 1}. Frame; mask of'
      f' the first frame (amber) and {dae.num_keypoints} tracked keypoints (a'
      ' gray ring is a lost one); optical flow (hue is direction) with the'
      ' windows around the keypoints; the flow patches cut from them, which'
      ' are the local motion that the model reads.',
    )
    for name, example in _showcases(config.pretrain.data)
  ]
  return report.Section(
    'Atomic actions in videos',
    [
      report.Text(
        'Held-out clips, one of every folder of videos: the one that moves most'
        f' among those that keep {_KEPT:.0%} of their keypoints.'
      ),
      *clips,
    ],
  )


def _showcases(
  data: ml_collections.ConfigDict,
) -> list[tuple[str, dict[str, Any]]]:
  """Source id and example of the clip to show of every folder."""
  source = shards.open_split(data.shards_dir, 'validation', data.clip_length)
  best = {}
  for index in range(len(source)):
    example = source[index]
    kept = min(_KEPT, example['visible'][1:].mean())
    score = kept, np.abs(example['flow'].astype(np.float32)).mean()
    name = example['source_id'].decode()
    group = name.rpartition('/')[0]
    if group not in best or score > best[group][0]:
      best[group] = score, name, example
  return [(name, example) for _, (_, name, example) in sorted(best.items())]


def _panels(
  example: dict[str, Any], dae: ml_collections.ConfigDict
) -> np.ndarray:
  points = example['points'][:, : dae.num_keypoints]
  return overlay.clip_panels(
    example['image'],
    example['flow'],
    points,
    example['visible'][:, : dae.num_keypoints],
    example['mask'],
    np.asarray(patches.crop(example['flow'], points, dae.patch_size)),
  )


def _pretraining(
  config: ml_collections.ConfigDict, folder: pathlib.Path, metrics: Metrics
) -> report.Section:
  rows, source = _open_loop(config.pretrain, folder / 'pretrain')
  n = evaluate.CONTEXT_STEPS
  strip = {name: clips[0] for name, clips in rows.items()}
  held_out = {
    'held_out/mae': 'model',
    'held_out/mae_zero_flow': 'no motion',
    'held_out/mae_mean_patch': 'mean patch',
  }
  return report.Section(
    'Pre-training without actions',
    [
      report.Figure(
        curves.compared_curves(metrics, held_out, _MAE),
        'Loss on held-out clips over steps, beside constant predictions',
        'Held-out clips: the loss of Eq. 5 on the patches that the model did'
        ' not see, beside what constant predictions reach.',
      ),
      report.Figure(
        curves.loss_curves(metrics, _PRETRAIN_LOSSES),
        'Training losses over gradient steps',
        'Training clips: the parts of L_MAE and L_dyn.',
      ),
      report.Clip(
        video.encode_webp(video.open_loop_video(rows, n), fps=5),
        'Held-out clips: true, reconstructed and predicted frames',
        f'{source} Up to frame {n - 1} the model sees the frames (blue), then'
        ' it predicts from motion alone (vermilion). Reconstructions see every'
        ' frame. Below: the error of the prediction.',
      ),
      report.Figure(
        video.encode_png(video.open_loop_strip(strip, n)),
        'The first of the clips, as a strip of frames',
        'The first of them, side by side.',
      ),
    ],
  )


def _open_loop(
  config: ml_collections.ConfigDict, folder: pathlib.Path
) -> tuple[dict[str, np.ndarray], str]:
  """Frames [N, T, 64, 64, 3] uint8 by kind, and which clips they are."""
  built = registry.build(config, 1, None)
  template = jax.eval_shape(lambda: built.pretraining.init(1.0))
  saved = checkpoint.Checkpoints(folder)
  state, _ = saved.restore(template)
  saved.close()
  batch = evaluate.held_out_batches(config, built.num_keypoints)[0]
  keys = noise.example_keys(jax.random.key(0), 0, len(batch.image))
  predict = jax.jit(
    functools.partial(
      built.system.open_loop, context_steps=evaluate.CONTEXT_STEPS
    )
  )
  variables = {'params': state.params, **state.collections}
  frames = [images.to_uint8(x) for x in predict(variables, batch, keys)]
  true = np.asarray(batch.image)
  change = np.abs(np.diff(true.astype(np.float32), axis=1)).mean((1, 2, 3, 4))
  shown = np.argsort(-change, kind='stable')[:_CLIPS]
  names = ('true', 'reconstructed', 'predicted')
  rows = {
    name: np.asarray(clips)[shown]
    for name, clips in zip(names, (true, *frames), strict=True)
  }
  return rows, (
    f'The {len(shown)} clips that change most, of a held-out batch of'
    f' {len(true)}.'
  )


def _finetuning(
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  metrics: Metrics,
  random: np.ndarray,
) -> report.Section:
  c = config.finetune
  evaluations = _with(metrics, 'eval/return')
  mean, std = (
    np.array([line[name] for line in evaluations])
    for name in ('eval/return', 'eval/return_std')
  )
  episodes = _with(metrics, 'episode/return')
  returns = [
    # Two values that have this mean and this standard deviation.
    _curve('evaluation', evaluations, np.stack([mean - std, mean + std], 1)),
    _curve(
      f'training episodes (random before step {c.finetune.prefill})',
      episodes,
      np.array([[line['episode/return']] for line in episodes]),
    ),
  ]
  factors = c.env.factors
  if factors is None:
    factors = dmcr.default_factors(c.task)
  frames = np.load(folder / 'finetune' / finetune.EPISODE_FILE)
  stride = _EPISODE_STRIDE
  losses = {
    name: label
    for name, label in _FINETUNE_LOSSES.items()
    if _with(metrics, name)
  }
  return report.Section(
    'Fine-tuning on a robot',
    [
      report.Figure(
        curves.return_curve(returns, random, c.env.action_repeat),
        'Episode returns over agent steps, beside a random policy',
        f'{c.task}, episodes per evaluation: {c.finetune.eval_episodes}. A'
        f' return is at most {c.env.episode_length * c.env.action_repeat}.',
      ),
      report.Clip(
        video.encode_webp(overlay.upscale(frames[::stride], 4), _EPISODE_FPS),
        "The agent's last evaluation episode",
        f'The last evaluation episode, every {stride}th of {len(frames)}'
        ' frames, as the agent sees it. What varies from episode to episode:'
        f' {", ".join(factors)}.',
      ),
      report.Figure(
        curves.loss_curves(metrics, losses, 'agent steps'),
        'Training losses over agent steps',
        'Losses of the world model and the agent.',
      ),
    ],
  )


def _what_ran(
  config: ml_collections.ConfigDict, folder: pathlib.Path, metrics: Metrics
) -> report.Section:
  data = data_report.read_report(config.pretrain.data.shards_dir)
  times = _read_json(folder / 'times.json')
  c = config.finetune
  counts = data['num_clips']
  updates = _with(metrics, 'updates')
  what = {
    'preprocess': f'{data["num_videos"]} videos: {counts["train"]} clips to'
    f' train on and {counts["validation"]} held out, {data["clip_length"]}'
    f' frames each; {len(data["left_out"])} videos and'
    f' {data["clips_left_out"]} clips left out; flow {c.extract.flow}, mask'
    f' {c.extract.mask}, tracker {c.extract.tracker}',
    'pretrain': f'{config.pretrain.pretrain.num_steps} gradient steps on'
    f' {config.pretrain.data.batch_size} clips each',
    'finetune': f'{metrics[-1]["step"]:.0f} agent steps of {c.env.suite}'
    f' {c.task}'
    + (f', {updates[-1]["updates"]:.0f} updates' if updates else ''),
    'report': 'this page, until it was written',
  }
  rows = [
    (name, text, _unbroken(times[name]['seconds']))
    for name, text in what.items()
    if name in times
  ]
  total = sum(entry['seconds'] for entry in times.values())
  machine = _read_json(folder / 'finetune' / 'run.json')
  return report.Section(
    'What ran',
    [
      report.Text(
        'All settings are in demo.json beside this page; all metrics in'
        ' metrics.jsonl and TensorBoard events in pretrain/ and finetune/.'
      ),
      report.Table(
        ['stage', 'what', 'time'],
        [*rows, ('all', '', _unbroken(total))],
        'Times of all starts together, compilation included.',
      ),
      report.Table(
        ['what', 'value'],
        [(name.replace('_', ' '), str(x)) for name, x in machine.items()],
        'On what it ran (the last start of fine-tuning).',
      ),
    ],
  )


def _with(metrics: Metrics, name: str) -> Metrics:
  """The lines that have a metric."""
  return [line for line in metrics if name in line]


def _curve(
  label: str, lines: Metrics, returns: np.ndarray
) -> curves.ReturnCurve:
  steps = np.array([line['step'] for line in lines])
  return curves.ReturnCurve(label, steps, returns)


def _unbroken(seconds: float) -> str:
  return demo_verdicts.duration(seconds).replace(' ', '\N{NO-BREAK SPACE}')


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text('utf-8'))
