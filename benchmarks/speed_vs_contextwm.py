r"""Times our training steps beside the official ContextWM's, piece by piece.

  python -m benchmarks.speed_vs_contextwm --checkout=DIR
  python -m benchmarks.speed_vs_contextwm --checkout=DIR --json \
      --out=benchmarks/results/speed_vs_contextwm.json

DIR is a checkout of github.com/thuml/ContextWM, which
third_party/contextwm_imports.py makes run here. Ours is `agent=ipv`: the same
networks, batch and losses. Each side has a process of its own and all cores;
they take turns, one call each, so whatever else the machine does meets both.
What is shown are medians, and the median of their ratio turn by turn: above 1
we are faster.

Whole steps come with optimizer, metrics and bonus; pieces are a forward and a
backward pass, to weights and, but for images, inputs:

  encoders      of all images, and of one context frame a clip
  decoder       of all steps, with cross-attention
  RSSM          z along the clips, and its KL
  world model   all of a fine-tuning step but what follows
  behavior     imagination from every state, actor and critic, their optimizers
"""

import functools
import os
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import record, servers, steps
from configs import base
from drp_jax import losses
from drp_jax.ops import noise
from drp_jax.runs import logger
from drp_jax.systems import intrinsic as intrinsic_lib
from drp_jax.systems import learner as learner_lib
from experiments import launch

PIECES = {
  'pretrain': ('step', 'encoders', 'decoder', 'RSSM'),
  'dmcr': ('step', 'world model', 'behavior'),
}
SIDES = ('ours', 'theirs')
_PATIENCE = 3600.0  # seconds for one call, of which the first compiles


def ours(
  stage: str, preset: str, batch_size: int | None = None
) -> dict[str, Callable[[], Any]]:
  """Functions that compute a piece each, and wait for it."""
  step = steps.make_step(stage, 'float32', preset, 'ipv', batch_size)
  learner = step.learner()
  system = learner.system
  rng = np.random.default_rng(0)
  batch = step.example.replace(
    image=rng.integers(0, 256, step.example.image.shape, np.uint8)
  )
  key = jax.random.key(0)
  keys = noise.example_keys(key, 0, step.batch_size)
  state = step.init()
  if stage == 'pretrain':
    pieces = _our_networks(system, state, batch, keys)
  else:
    pieces = _our_halves(learner, state, batch, keys)
  # A copy, since the step donates what it is given.
  held = [jax.tree.map(jnp.copy, state)]
  whole = jax.jit(learner.update, donate_argnums=0)

  def take_step():
    held[0], metrics = whole(held[0], batch, key)
    return held[0], metrics

  return {
    name: functools.partial(_wait, function)
    for name, function in {'step': take_step, **pieces}.items()
  }


def _wait(function):
  jax.block_until_ready(function())


def _our_networks(system, state, batch, keys):
  model = system.model

  def gradient(function, *inputs):
    """Of a loss by parameters and inputs; runs on their values."""

    def loss(params, inputs, collections):
      out, _ = model.apply(
        {'params': params, **collections},
        *inputs,
        method=function,
        mutable=list(collections),
      )
      return out

    compiled = jax.jit(jax.grad(loss, (0, 1) if inputs else 0))
    return lambda: compiled(state.params, inputs, state.collections)

  B, T = batch.is_first.shape
  image = batch.image.astype(np.float32) / 255.0 - 0.5
  shapes = jax.eval_shape(
    lambda: model.apply(
      {'params': state.params, **state.collections},
      image,
      method=lambda m, x: (m.encode(x, False), m.context(x[:, 0], False)),
    )
  )
  rng = np.random.default_rng(1)
  embed, context = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
  )
  feat = rng.normal(size=(B, T, model.latent_dynamics.feat_size))
  no_action = jnp.zeros([B, T, model.latent_dynamics.action_size])

  def encoders(m):
    context = m.context(image[:, 0], True)
    return sum(
      jnp.square(x).mean()
      for x in (m.encode(image, True), context.coarse, context.fine)
    )

  def decoder(m, feat, context):
    decoded = m.image_decoder(feat, context, keys, True)
    return losses.image_loss(decoded, image)

  def rssm(m, embed):
    post, prior = m.observe_z(
      embed, no_action, batch.is_first, m._gumbel(keys, embed)
    )
    kl, _ = losses.kl_loss(post.logits, prior.logits, 0.8, 0.0, None)
    return kl + jnp.square(post.feat).mean()

  return {
    'encoders': gradient(encoders),
    'decoder': gradient(decoder, feat.astype(np.float32), context),
    'RSSM': gradient(rssm, embed),
  }


def _our_halves(learner, state, batch, keys):
  system = learner.system
  bonus = functools.partial(
    intrinsic_lib.bonus,
    state.intrinsic,
    settings=learner.bonus,
    axis_name=None,
  )
  model, policy = learner_lib.split(state.params)
  moved = learner_lib.apply

  @jax.jit
  def world_model(model, opt_state):
    grads, out = jax.grad(system.world_model_loss, has_aux=True)(
      model, state.collections, batch, keys, bonus
    )
    return moved(learner.model_tx, grads, opt_state, model), out

  @jax.jit
  def behavior(policy, opt_state, start):
    grads, metrics = jax.grad(system.behavior_loss, has_aux=True)(
      policy,
      state.slow_critic,
      model,
      state.collections,
      start,
      batch.is_terminal.reshape(-1),
      keys,
    )
    return moved(learner.behavior_tx, grads, opt_state, policy), metrics

  N = batch.is_first.size
  start = jax.tree.map(
    lambda x: jnp.zeros([N, *x.shape[1:]]),
    jax.eval_shape(lambda: system.model.action_dynamics.initial(N)),
  )
  return {
    'world model': lambda: world_model(model, state.model_opt),
    'behavior': lambda: behavior(policy, state.behavior_opt, start),
  }


def serve(
  side: str, stage: str, preset: str, checkout: str, batch_size: int | None
) -> tuple[None, servers.Answer]:
  """Makes one side; what it returns answers names of pieces with seconds.

  It also answers `peak`, with GiB.
  """
  if side == 'ours':
    pieces = ours(stage, preset, batch_size)
  else:
    from benchmarks import contextwm_pieces  # and torch, on their side alone

    pieces = contextwm_pieces.make(stage, preset, checkout, batch_size)

  def answer(name: str) -> float:
    if name == 'peak':
      unit = 1 if sys.platform == 'darwin' else 1024
      rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
      return rss * unit / 2**30
    begin = time.perf_counter()
    pieces[name]()
    return time.perf_counter() - begin

  return None, answer


def _server(
  side: str, stage: str, preset: str, checkout: str, batch_size: int | None
) -> servers.Server:
  size = [] if batch_size is None else [f'--batch_size={batch_size}']
  command = [
    *(sys.executable, '-m', 'benchmarks.speed_vs_contextwm'),
    *(f'--serve={side}', f'--stage={stage}', f'--preset={preset}'),
    *(f'--checkout={checkout}', *size),
  ]
  return servers.Server(command, os.environ)


def measure(
  stage: str, preset: str, checkout: str, rounds: int, batch_size: int | None
) -> list[dict[str, Any]]:
  """Times all pieces of a stage, both sides in turns.

  Returns:
    A row for each piece: `seconds` of each side, `ratio` (median of theirs to
    ours, turn by turn), `ratios`, and for `step` the `peak_gib` of processes
    that took steps, before any other piece; it holds the pieces' inputs, and of
    ours a second copy of the state.

  Raises:
    TimeoutError: if a call takes longer than an hour.
    servers.Failure: if a process fails; says why.
  """
  sides = {
    side: _server(side, stage, preset, checkout, batch_size) for side in SIDES
  }

  def ask(question: str) -> dict[str, float]:
    """Answers of all sides, one after the other."""
    return {
      side: server.ask(question, time.monotonic() + _PATIENCE)
      for side, server in sides.items()
    }

  rows = []
  try:
    for server in sides.values():
      server.answer(time.monotonic() + _PATIENCE)  # it is ready
    for piece in logger.progress(PIECES[stage], f'{stage}, {preset}', 'piece'):
      ask(piece)  # compiles, or fills caches
      turns = [ask(piece) for _ in range(rounds)]
      ratios = [turn['theirs'] / turn['ours'] for turn in turns]
      row = {
        'stage': stage,
        'preset': preset,
        'piece': piece,
        'seconds': {
          side: statistics.median(turn[side] for turn in turns)
          for side in SIDES
        },
        'ratio': statistics.median(ratios),
        'ratios': ratios,
      }
      if piece == 'step':
        row['peak_gib'] = ask('peak')
      rows.append(row)
  finally:
    for server in sides.values():
      server.close()
  return rows


def table(rows: list[dict[str, Any]]) -> str:
  """All results as a table in Markdown."""
  lines = [
    '| what | ContextWM, s | ours, s | ratio | of turns | memory, GiB |',
    '|---|---|---|---|---|---|',
  ]
  for row in rows:
    seconds, ratios = row['seconds'], row['ratios']
    peak = row.get('peak_gib')
    memory = f'{peak["theirs"]:.1f}, {peak["ours"]:.1f}' if peak else ''
    lines.append(
      f'| {row["stage"]}, {row["preset"]}: {row["piece"]} |'
      f' {seconds["theirs"]:.3f} | {seconds["ours"]:.3f} |'
      f' {row["ratio"]:.2f} | {min(ratios):.2f} to {max(ratios):.2f} |'
      f' {memory} |'
    )
  return '\n'.join(lines)


def main() -> None:
  if not (pathlib.Path(_CHECKOUT.value) / 'wmlib').is_dir():
    raise ValueError(f'--checkout={_CHECKOUT.value} holds no wmlib.')
  if _SERVE.value:
    what = _SERVE.value, _STAGE.value[0], _PRESET.value[0]
    servers.serve(lambda: serve(*what, _CHECKOUT.value, _BATCH_SIZE.value))
    return
  rows = []
  for preset in _PRESET.value:
    for stage in _STAGE.value:
      rows += measure(
        stage, preset, _CHECKOUT.value, _ROUNDS.value, _BATCH_SIZE.value
      )
  print(table(rows))
  record.finish(
    {
      'rounds': _ROUNDS.value,
      'batch_size': _BATCH_SIZE.value,
      'speed_vs_contextwm': rows,
    }
  )


if __name__ == '__main__':
  _CHECKOUT = flags.DEFINE_string('checkout', None, 'Of thuml/ContextWM.')
  _ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each piece.')
  _STAGE = flags.DEFINE_multi_enum(
    'stage', list(PIECES), list(PIECES), 'May be given again.'
  )
  _PRESET = flags.DEFINE_multi_enum(
    'preset', ('nano', 'paper'), base.PRESETS, 'May be given again.'
  )
  _BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', None, "Of both; by default, the preset's.", 1
  )
  _SERVE = flags.DEFINE_enum('serve', None, SIDES, 'One side; internal.')
  flags.mark_flag_as_required('checkout')
  launch.run(main)
