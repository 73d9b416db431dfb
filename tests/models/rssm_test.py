"""Tests of the state-space model: scans are loops of steps, flags forget."""

import functools

import jax
import numpy as np
import pytest
import random_inputs

from drp_jax import types
from drp_jax.models import rssm

_B, _T, _A, _E = 2, 5, 3, 6
_MODEL = rssm.RSSM(
  deter_size=8, hidden=7, groups=2, classes=4, action_size=_A, embed_size=_E
)


@functools.cache
def _params():
  embed, action, first, gumbel = _inputs()
  shapes = jax.eval_shape(
    lambda key: _MODEL.init(
      key, embed, action, first, gumbel, method='observe'
    ),
    jax.random.key(0),
  )
  return random_inputs.fill(shapes)


@functools.cache
def _apply(method):
  """`method` under jit, with fixed parameters."""
  return jax.jit(lambda *args: _MODEL.apply(_params(), *args, method=method))


def _inputs():
  rng = np.random.default_rng(0)
  first = np.zeros((_B, _T), bool)
  first[:, 0] = True
  first[1, 3] = True
  return (
    rng.normal(size=(_B, _T, _E)).astype(np.float32),
    rng.uniform(-1, 1, (_B, _T, _A)).astype(np.float32),
    first,
    rng.gumbel(size=(_B, _T, 2, 4)).astype(np.float32),
  )


def _assert_close(a: types.RSSMState, b: types.RSSMState):
  for name in ('deter', 'stoch', 'logits'):
    x, y = getattr(a, name), getattr(b, name)
    np.testing.assert_allclose(x, y, atol=1e-5, err_msg=name)


def _at(state, t):
  return jax.tree.map(lambda x: x[:, t], state)


def test_features_are_samples_then_the_recurrent_part():
  post, _ = _apply('observe')(*_inputs())
  assert post.feat.shape == (_B, _T, 2 * 4 + 8)
  np.testing.assert_array_equal(
    post.feat[..., :8], post.stoch.reshape(_B, _T, 8)
  )
  np.testing.assert_array_equal(post.feat[..., 8:], post.deter)


def test_observe_is_a_loop_of_obs_step():
  embed, action, first, gumbel = _inputs()
  post, _ = _apply('observe')(*_inputs())
  state = _MODEL.initial(_B)
  for t in range(_T):
    state = _apply('obs_step')(
      state, embed[:, t], action[:, t], first[:, t], gumbel[:, t]
    )
    _assert_close(state, _at(post, t))


def test_gradients_of_observe_are_those_of_the_loop():
  embed, action, first, gumbel = _inputs()
  params = _params()

  def loss(states):
    return sum((x**2).sum() for x in jax.tree.leaves(states))

  def scanned(params, embed):
    post, _ = _MODEL.apply(
      params, embed, action, first, gumbel, method='observe'
    )
    return loss(post)

  def looped(params, embed):
    state, total = _MODEL.initial(_B), 0.0
    for t in range(_T):
      x = embed[:, t], action[:, t], first[:, t], gumbel[:, t]
      state = _MODEL.apply(params, state, *x, method='obs_step')
      total += loss(state)
    return total

  got = jax.jit(jax.grad(scanned, (0, 1)))(params, embed)
  want = jax.jit(jax.grad(looped, (0, 1)))(params, embed)
  assert np.abs(want[1]).max() > 1e-3
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
    got,
    want,
  )


def test_img_step_is_the_prior_of_the_observed_path():
  _, action, first, gumbel = _inputs()
  post, prior = _apply('observe')(*_inputs())
  for t in range(1, _T):
    state = _apply('img_step')(_at(post, t - 1), action[:, t], gumbel[:, t])
    goes_on = ~first[:, t]
    np.testing.assert_allclose(
      state.logits[goes_on], prior.logits[goes_on, t], atol=1e-5
    )
    np.testing.assert_allclose(
      state.deter[goes_on], post.deter[goes_on, t], atol=1e-5
    )


def test_imagine_is_a_loop_of_img_step():
  _, action, _, gumbel = _inputs()
  state = _at(_apply('observe')(*_inputs())[0], 0)
  imagined = _apply('imagine')(state, action, gumbel)
  for t in range(_T):
    state = _apply('img_step')(state, action[:, t], gumbel[:, t])
    _assert_close(state, _at(imagined, t))


def test_without_noise_samples_are_modes():
  post, _ = _apply('observe')(*_inputs()[:3], None)
  np.testing.assert_array_equal(post.stoch.argmax(-1), post.logits.argmax(-1))


def test_is_first_forgets_the_past_and_the_action():
  embed, action, first, gumbel = _inputs()
  changed_embed, changed_action = embed.copy(), action.copy()
  changed_embed[1, :3] += 1.0
  changed_action[1, :4] += 1.0  # the action at the first entry itself too
  changed_action[0, 0] += 1.0
  base, base_prior = _apply('observe')(embed, action, first, gumbel)
  post, prior = _apply('observe')(changed_embed, changed_action, first, gumbel)
  _assert_close(_at(post, 3), _at(base, 3))
  np.testing.assert_array_equal(prior.logits[:, 3:], base_prior.logits[:, 3:])
  _assert_close(
    jax.tree.map(lambda x: x[0], post), jax.tree.map(lambda x: x[0], base)
  )
  assert np.abs(post.deter - base.deter)[1, 1].max() > 1e-3


def test_entry_t_of_action_leads_to_state_t_and_embed_not_to_its_prior():
  embed, action, first, gumbel = _inputs()
  base, base_prior = _apply('observe')(embed, action, first, gumbel)
  changed = action.copy()
  changed[:, 2] += 1.0
  post, _ = _apply('observe')(embed, changed, first, gumbel)
  moved = np.abs(post.deter - base.deter).max((0, 2))
  assert (moved[:2] == 0).all()
  assert moved[2] > 1e-3
  changed = embed.copy()
  changed[:, 2] += 1.0
  post, prior = _apply('observe')(changed, action, first, gumbel)
  np.testing.assert_array_equal(prior.logits[:, 2], base_prior.logits[:, 2])
  assert np.abs(post.logits - base.logits)[:, 2].max() > 1e-3


def test_narrow_actions_are_padded_and_wide_ones_raise():
  """A slot of 3 for actions of 2: as if the third were 0."""
  embed, action, first, gumbel = _inputs()
  padded = action.copy()
  padded[..., 2] = 0.0
  base, _ = _apply('observe')(embed, padded, first, gumbel)
  narrow, _ = _apply('observe')(embed, action[..., :2], first, gumbel)
  _assert_close(narrow, base)
  state = _apply('img_step')(_at(base, 0), action[:, 1, :2], gumbel[:, 1])
  _assert_close(
    state, _apply('img_step')(_at(base, 0), padded[:, 1], gumbel[:, 1])
  )
  with pytest.raises(ValueError, match='4 numbers do not fit a slot of 3'):
    _apply('observe')(embed, np.zeros((_B, _T, 4)), first, gumbel)


def test_the_first_prior_depends_on_nothing():
  _, prior = _apply('observe')(*_inputs())
  np.testing.assert_allclose(prior.logits[0, 0], prior.logits[1, 0], atol=1e-6)
  np.testing.assert_allclose(prior.logits[0, 0], prior.logits[1, 3], atol=1e-6)
