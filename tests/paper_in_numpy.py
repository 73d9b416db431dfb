"""The networks of the paper in NumPy: loops over frames, keypoints and heads.

Written from the text and the table of choices, one sequence at a time; they
share with drp_jax the names of parameters and nothing else. Feed float64.
"""

import math

import numpy as np


def float64(tree):
  """A dict of dicts of arrays as float64."""
  if isinstance(tree, dict):
    return {name: float64(part) for name, part in tree.items()}
  return np.asarray(tree, np.float64)


def sigmoid(x):
  return 1.0 / (1.0 + np.exp(-x))


def elu(x):
  return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


def gelu(x):
  return 0.5 * x * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


def dense(p, x):
  return x @ p['kernel'] + p.get('bias', 0.0)


def layer_norm(p, x, eps=1e-6):
  centered = x - x.mean(-1, keepdims=True)
  x = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + eps)
  return x * p['scale'] + p['bias']


def log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def kl(post, prior):
  """Logits [groups, classes] -> KL(post || prior), summed over groups."""
  total = 0.0
  for q, p in zip(post, prior, strict=True):
    q, p = log_softmax(q), log_softmax(p)
    total += sum(np.exp(q) * (q - p))
  return total


def mlp(p, x):
  """Hidden layers with ELU, then a linear one."""
  for i in range(len(p) - 1):
    x = elu(dense(p[f'dense{i}'], x))
  return dense(p['out'], x)


def crop(flow, points, size):
  """Sec. 4.2.1: [H, W, 2], [K, 2] -> [K, size, size, 2] (A4, A5)."""
  H, W = flow.shape[:2]
  out = np.zeros((len(points), size, size, 2), flow.dtype)
  for k, (x, y) in enumerate(points):
    left, top = (int(np.floor(c + 0.5)) - size // 2 for c in (x, y))
    for row in range(size):
      for col in range(size):
        source_x = min(max(left + col, 0), W - 1)
        source_y = min(max(top + row, 0), H - 1)
        out[k, row, col] = flow[source_y, source_x]
  return out


def coordinate_features(point, image_size=64):
  """[2] -> [64]: sines, then cosines, x before y (B5)."""
  bands = 2.0 ** np.linspace(-2, 4, 16)
  angles = [2 * np.pi * c / image_size * band for c in point for band in bands]
  return np.concatenate([np.sin(angles), np.cos(angles)])


def time_features(step, width):
  """Scalar -> [width] (B6)."""
  rates = [10_000.0 ** (-i / (width // 2)) for i in range(width // 2)]
  angles = [step * rate for rate in rates]
  return np.concatenate([np.sin(angles), np.cos(angles)])


def tokens(p, patches, points, window_step):
  """Sec. 9, [T, K, U] -> [T, K+1, D]: content + place + time, [MAT] first."""
  T, K = patches.shape[:2]
  D = len(p['mat'])
  out = np.zeros((T, K + 1, D))
  for t in range(T):
    time = time_features(window_step[t], D)
    out[t, 0] = p['mat'] + time
    for k in range(K):
      place = dense(p['coordinate'], coordinate_features(points[t, k]))
      out[t, k + 1] = dense(p['content'], patches[t, k]) + place + time
  return out


def windows(window_step, is_first):
  """[T] -> [T, T]: which steps lie in one tracking window (B6)."""
  names = []
  for t, step in enumerate(window_step):
    goes_on = t and step and not is_first[t] and not is_first[t - 1]
    names.append(names[-1] if goes_on else t)
  return np.array([[a == b for b in names] for a in names])


def attention(query, key, value, allowed, num_heads):
  """Eqs. 14, 16: [Q, D], [N, D], [N, D], [Q, N] -> [Q, D]."""
  width = query.shape[-1] // num_heads
  out = np.full(query.shape, np.nan)  # of a query without keys
  for i in range(len(query)):
    keys = np.nonzero(allowed[i])[0]
    for head in range(num_heads if len(keys) else 0):
      part = slice(head * width, (head + 1) * width)
      scores = [query[i, part] @ key[j, part] / math.sqrt(width) for j in keys]
      weights = np.exp(log_softmax(np.array(scores)))
      out[i, part] = sum(
        w * value[j, part] for w, j in zip(weights, keys, strict=True)
      )
  return out


def block(p, x, seen, time_mask, num_heads):
  """Eqs. 13-19 on [T, K+1, D]; LayerNorm before every branch (B1).

  Args:
    p: parameters.
    x: [T, K+1, D].
    seen: [T, K+1], which tokens are there.
    time_mask: [T, T], which steps (columns) a step (row) may see.
    num_heads: with more than one, there is an output matrix (B2).

  Returns:
    [T, K+1, D] each: the projections `intra_query` ... `inter_value`; Z' as
    `intra`, Z'' as `inter`, Z_out as `out`.
  """
  T, N, _ = x.shape
  found = {}

  def project(h, branch):
    for name in ('query', 'key', 'value'):
      found[f'{branch}_{name}'] = h @ p[f'{branch}_{name}']['kernel']
    return [found[f'{branch}_{name}'] for name in ('query', 'key', 'value')]

  def out(h, branch):
    return h @ p[f'{branch}_out']['kernel'] if num_heads > 1 else h

  q, k, v = project(layer_norm(p['intra_norm'], x), 'intra')  # Eq. 13
  h = np.zeros_like(x)
  for t in range(T):
    h[t] = attention(q[t], k[t], v[t], np.tile(seen[t], (N, 1)), num_heads)
  x = found['intra'] = x + out(h, 'intra')  # Eq. 17
  q, k, v = project(layer_norm(p['inter_norm'], x), 'inter')  # Eq. 15
  for n in range(N):
    allowed = time_mask & seen[:, n][None]
    h[:, n] = attention(q[:, n], k[:, n], v[:, n], allowed, num_heads)
  x = found['inter'] = x + out(h, 'inter')  # Eq. 18
  h = gelu(dense(p['mlp_in'], layer_norm(p['mlp_norm'], x)))
  found['out'] = x + dense(p['mlp_out'], h)  # Eq. 19
  return found


def dae(p, patches, points, window_step, is_first, hidden, num_heads):
  """The encoder on one sequence; hidden tokens are not there (B11).

  Returns:
    [T, K+1, D] with NaN for hidden tokens and zero where `is_first`, slot 0
    a_agg; and what each block found.
  """
  seen = np.concatenate([np.ones((len(hidden), 1), bool), ~hidden], 1)
  x = tokens(p['tokens'], patches, points, window_step)
  x = np.where(seen[..., None], x, np.nan)
  past = np.tril(windows(window_step, is_first))
  blocks = []
  for i in range(sum(name.startswith('blocks_') for name in p)):
    blocks.append(block(p[f'blocks_{i}'], x, seen, past, num_heads))
    x = blocks[-1]['out']
  x = layer_norm(p['norm'], x)
  return np.where(is_first[:, None, None], 0.0, x), blocks


def mae_decoder(p, encoded, points, window_step, is_first, hidden, num_heads):
  """B13 on one sequence: [T, K+1, D] -> [T, K, 2 P^2]."""
  T, K = hidden.shape
  x = dense(p['embed'], encoded)
  for t in range(T):
    for k in range(K):
      if hidden[t, k]:
        x[t, k + 1] = p['mask_token']
      place = coordinate_features(points[t, k])
      x[t, k + 1] += dense(p['coordinate'], place)
    x[t] += time_features(window_step[t], x.shape[-1])
  everything = np.ones((T, K + 1), bool)
  same = windows(window_step, is_first)  # not causal
  for i in range(sum(name.startswith('block') for name in p)):
    x = block(p[f'block{i}'], x, everything, same, num_heads)['out']
  return dense(p['out'], layer_norm(p['norm'], x[:, 1:]))


def gru(p, h, x):
  """The cell of the lineage: reset times the pre-activation, update - 1."""
  parts = dense(p['dense'], np.concatenate([x, h], -1))
  parts = layer_norm(p['norm'], parts, 1e-3)
  reset, cand, update = np.split(parts, 3, -1)
  update = sigmoid(update - 1.0)
  return update * np.tanh(sigmoid(reset) * cand) + (1.0 - update) * h


def recur(p, deter, stoch, action):
  """The next recurrent state; stoch [..., groups * classes]."""
  x = dense(p['stoch_in'], stoch) + dense(p['action_in'], action)
  return gru(p['gru'], deter, elu(x))


def prior_logits(p, deter, classes):
  """p(x_t | x_{t-1}, a_{t-1}) of the recurrent state."""
  logits = dense(p['prior_out'], elu(dense(p['prior_hidden'], deter)))
  return logits.reshape(*deter.shape[:-1], -1, classes)


def rssm(p, observed, action, is_first, stoch):
  """Eqs. 1 and 3 along the samples that were drawn, one sequence.

  Args:
    p: parameters.
    observed: [T, E].
    action: [T, A], entry t led to frame t.
    is_first: [T] bool.
    stoch: [T, groups, classes], the samples.

  Returns:
    deter [T, D]; logits of q and of p [T, groups, classes].
  """
  classes = stoch.shape[-1]
  deter = np.zeros(p['prior_hidden']['kernel'].shape[0])
  deters, post, prior = [], [], []
  for t in range(len(observed)):
    before = stoch[t - 1].reshape(-1)
    if is_first[t]:
      deter, before, now = 0.0 * deter, 0.0 * before, 0.0 * action[t]
    else:
      now = action[t]
    deter = recur(p, deter, before, now)
    h = dense(p['post_deter'], deter) + dense(p['post_embed'], observed[t])
    deters.append(deter)
    post.append(dense(p['post_out'], elu(h)).reshape(-1, classes))
    prior.append(prior_logits(p, deter, classes))
  return np.stack(deters), np.stack(post), np.stack(prior)


def adapter(p, x):
  """D6: a projection, residual MLPs, LayerNorm."""
  x = dense(p['in'], x)
  for i in range(sum(name.startswith('norm') for name in p) - 1):
    h = gelu(dense(p[f'block{i}_in'], layer_norm(p[f'norm{i}'], x)))
    x = x + dense(p[f'block{i}_out'], h)
  return layer_norm(p['norm_out'], x)
