r"""Checkpoints of the official ContextWM code, in our trees.

  python -m drp_jax.convert.contextwm --checkpoint=variables.pt --out=runs/ipv

The new folder is a workdir as pre-training leaves one, for `config.init_from`
of `config.agent` 'ipv', or of 'apv' if the file holds a plain world model. The
first serves the row IPV_pre_DRP_ft of Fig. 7 too (choice E7):
--config=configs/ablations.py:after_ipv,dmcr.

Strict: every array of the file is used, and none is missing. The original is at
github.com/thuml/ContextWM; tests/parity/compare_contextwm.py runs it beside
ours.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from drp_jax import weights
from drp_jax.convert import checkpoints
from drp_jax.models import image_decoder, image_encoder, rssm

SOURCE = weights.Source(
  key='--checkpoint',
  files='variables.pt, or a folder with {rssm,encoder,decoder}_variables.pt',
  origin='pre-training with github.com/thuml/ContextWM',
  license='MIT',
)

PARTS = {  # files of a folder, and how their arrays are called in variables.pt
  'rssm_variables.pt': 'wm.rssm.',
  'encoder_variables.pt': 'wm.encoder.',
  'decoder_variables.pt': 'wm.heads.decoder.',
}
IMAGE_SIZE = 64
_STAGES = 3  # of the image towers
SIDE = 4  # of their smallest maps

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
  """How one of our arrays comes from one of theirs, whole or in part.

  Linear, so it holds for gradients too.

  Attributes:
    source: their name.
    path: collection and names in our tree; () for what has no place there.
    convert: their array -> ours.
  """

  source: str
  path: tuple[str, ...]
  convert: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What the arrays' names and layouts depend on.

  Attributes:
    num_layers: residual layers in each stage of the image towers.
    deter: width of the recurrent state.
    stoch: groups times classes.
    has_context: whether there is a tower for contexts (IPV) or none (APV).
  """

  num_layers: int
  deter: int
  stoch: int
  has_context: bool


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads `variables.pt` or a folder, see `checkpoints.read`."""
  return checkpoints.read(path, SOURCE, PARTS)


def convert(arrays: Arrays) -> dict[str, Any]:
  """Converts what the official pre-training saves.

  Args:
    arrays: from `read`.

  Returns:
    {'params', 'batch_stats'} of `image_encoder`, `context_encoder` (not of a
    plain world model), `image_decoder` and `latent_dynamics`, whose slot for
    actions is the official one.

  Raises:
    ValueError: naming the arrays that are missing, unknown or of another shape.
  """
  sizes = _sizes(arrays)
  found = apply_rules(world_model_rules(sizes), arrays)
  expected = _expected(found['params'], sizes)
  checkpoints.check_shapes(found, expected, SOURCE)
  return found


def apply_rules(
  rules: Iterable[Rule], arrays: Arrays, source: weights.Source = SOURCE
) -> dict[str, Any]:
  """Converts arrays, all that the rules name and no others.

  Args:
    rules: for every array.
    arrays: by their names.
    source: what errors say of the file.

  Raises:
    ValueError: naming the arrays that are missing or unknown.
  """
  rules = list(rules)
  expected = {rule.source for rule in rules}
  missing = checkpoints.listed(expected - arrays.keys())
  unknown = checkpoints.listed(arrays.keys() - expected)
  if missing or unknown:
    raise ValueError(
      f'{source.key}: {len(arrays)} arrays in the file, {len(expected)}'
      f' expected. Missing: {missing or "none"}. Unknown: {unknown or "none"}.'
      f' Expected is {source.files}, of {source.origin}.'
    )
  found = {}
  for rule in rules:
    array = arrays[rule.source]
    try:
      found[rule.path] = rule.convert(array)
    except ValueError as error:
      raise ValueError(
        f'{source.key}: {rule.source} has the shape {array.shape}, which does'
        f' not fit ({error}).'
      ) from error
  found.pop((), None)
  return flax.traverse_util.unflatten_dict(found)


def world_model_rules(sizes: Sizes) -> list[Rule]:
  """Rules for `variables.pt` of pre-training."""
  rules = [
    *tower_rules('wm.encoder.', 'image_encoder', sizes),
    *decoder_rules('wm.heads.decoder.', 'image_decoder', sizes),
    *rssm_rules('wm.rssm.', 'latent_dynamics', sizes),
  ]
  if sizes.has_context:
    rules += tower_rules('wm.encoder.cond_', 'context_encoder', sizes)
  return rules


def tower_rules(source: str, name: str, sizes: Sizes) -> list[Rule]:
  """Rules for an image encoder; names are prefixes, theirs and ours."""
  rules = [
    Rule(f'{source}convin.weight', ('params', name, 'conv_in', 'kernel'), conv),
    Rule(f'{source}convin.bias', ('params', name, 'conv_in', 'bias'), np.array),
  ]
  for stage in range(_STAGES):
    for layer in range(sizes.num_layers):
      rules += _residual_rules(
        f'{source}res{stage}.stack.{layer}.',
        (name, f'stage{stage}_layer{layer}'),
        changes_width=stage > 0 and layer == 0,
      )
  return rules


def decoder_rules(source: str, name: str, sizes: Sizes) -> list[Rule]:
  """Rules for an image decoder."""
  rules = [
    Rule(
      f'{source}convin.weight',
      ('params', name, 'dense', 'kernel'),
      lambda x: channels_last(x, SIDE).T,
    ),
    Rule(
      f'{source}convin.bias',
      ('params', name, 'dense', 'bias'),
      lambda x: channels_last(x, SIDE),
    ),
    Rule(
      f'{source}convout.weight',
      ('params', name, 'conv_out', 'kernel'),
      conv_up,
    ),
    Rule(
      f'{source}convout.bias', ('params', name, 'conv_out', 'bias'), np.array
    ),
  ]
  for stage in range(_STAGES):
    if sizes.has_context and stage < _STAGES - 1:
      rules += _attention_rules(
        f'{source}res{stage}.stack.0.', (name, f'context{stage}')
      )
    for layer in range(sizes.num_layers):
      rules += _residual_rules(
        f'{source}res{stage}.stack.{layer}.',
        (name, f'stage{stage}_layer{layer}'),
        changes_width=layer == sizes.num_layers - 1,
      )
  return rules


def rssm_rules(
  source: str, name: str, sizes: Sizes, feat: int = 0, side: int = SIDE
) -> list[Rule]:
  """Rules for a dynamics model.

  Args:
    source: prefix of their names.
    name: ours.
    sizes: of the model.
    feat: width of another model's features, where it observes such, too or
      only; they follow the embedding.
    side: of the maps that are flattened to embeddings.
  """

  def embed_rows(x):
    rows = x[:, sizes.deter :].T  # [E + feat, hidden]
    E = rows.shape[0] - feat
    return np.concatenate([channels_last(rows[:E], side), rows[E:]])

  own = 'params', name
  return [
    Rule(
      f'{source}img_in.weight',
      (*own, 'stoch_in', 'kernel'),
      lambda x: x[:, : sizes.stoch].T,
    ),
    Rule(
      f'{source}img_in.weight',
      (*own, 'action_in', 'kernel'),
      lambda x: x[:, sizes.stoch :].T,
    ),
    Rule(f'{source}img_in.bias', (*own, 'action_in', 'bias'), np.array),
    *dense_rules(f'{source}_cell._layer', (name, 'gru', 'dense')),
    Rule(
      f'{source}_cell._norm.weight', (*own, 'gru', 'norm', 'scale'), np.array
    ),
    Rule(f'{source}_cell._norm.bias', (*own, 'gru', 'norm', 'bias'), np.array),
    *dense_rules(f'{source}img_out_0', (name, 'prior_hidden')),
    *dense_rules(f'{source}img_dist_0', (name, 'prior_out')),
    Rule(
      f'{source}obs_out.weight',
      (*own, 'post_deter', 'kernel'),
      lambda x: x[:, : sizes.deter].T,
    ),
    Rule(f'{source}obs_out.weight', (*own, 'post_embed', 'kernel'), embed_rows),
    Rule(f'{source}obs_out.bias', (*own, 'post_embed', 'bias'), np.array),
    *dense_rules(f'{source}obs_dist', (name, 'post_out')),
  ]


def dense_rules(source: str, path: tuple[str, ...]) -> list[Rule]:
  """Rules for a dense layer."""
  return [
    Rule(f'{source}.weight', ('params', *path, 'kernel'), np.transpose),
    Rule(f'{source}.bias', ('params', *path, 'bias'), np.array),
  ]


def channels_last(x: np.ndarray, side: int) -> np.ndarray:
  """Flattened maps [C * side * side, ...] -> [side * side * C, ...]."""
  maps = x.reshape(-1, side, side, *x.shape[1:])
  return np.moveaxis(maps, 0, 2).reshape(x.shape)


def conv(x: np.ndarray) -> np.ndarray:
  """[out, in, h, w] -> [h, w, in, out]."""
  return x.transpose(2, 3, 1, 0)


def conv_up(x: np.ndarray) -> np.ndarray:
  """Transposed: [in, out, h, w] -> [h, w, in, out], turned by 180 degrees."""
  return x.transpose(2, 3, 0, 1)[::-1, ::-1]


def _attention_rules(source: str, path: tuple[str, ...]) -> list[Rule]:
  own, packed = ('params', *path), f'{source}cross_attention.att.in_proj_'
  rules = [
    Rule(f'{source}kv_pos_emb', (*own, 'context_positions'), np.array),
    Rule(f'{source}q_pos_emb', (*own, 'query_positions'), np.array),
    *dense_rules(f'{source}cross_attention.att.out_proj', (*path, 'out')),
    *_norm_rules(f'{source}norm_cross_att.', (*path, 'norm')),
  ]
  for i, name in enumerate(('query', 'key', 'value')):

    def third(x, i=i):
      return np.split(x, 3)[i].T

    rules += [
      Rule(f'{packed}weight', (*own, name, 'kernel'), third),
      Rule(f'{packed}bias', (*own, name, 'bias'), third),
    ]
  return rules


def _residual_rules(
  source: str, path: tuple[str, ...], changes_width: bool
) -> list[Rule]:
  layers = {'res_block.0': 'conv1', 'res_block.3': 'conv2'}
  norms = {'res_block.1.': 'norm1', 'res_block.4.': 'norm2'}
  if changes_width:
    layers['identity.0'] = 'conv_skip'
    norms['identity.1.'] = 'norm_skip'
  rules = [
    Rule(f'{source}{theirs}.weight', ('params', *path, ours, 'kernel'), conv)
    for theirs, ours in layers.items()
  ]
  for theirs, ours in norms.items():
    rules += _norm_rules(source + theirs, (*path, ours))
  return rules


def _norm_rules(source: str, path: tuple[str, ...]) -> list[Rule]:
  params, stats = ('params', *path, 'norm'), ('batch_stats', *path, 'norm')
  return [
    Rule(f'{source}weight', (*params, 'scale'), np.array),
    Rule(f'{source}bias', (*params, 'bias'), np.array),
    Rule(f'{source}running_mean', (*stats, 'mean'), np.array),
    Rule(f'{source}running_var', (*stats, 'var'), np.array),
    Rule(f'{source}num_batches_tracked', (), np.array),
  ]


def _sizes(arrays: Arrays) -> Sizes:
  stack = re.compile(r'wm\.encoder\.res0\.stack\.(\d+)\.')
  layers = [1 + int(match[1]) for match in map(stack.match, arrays) if match]
  nothing = np.zeros(0)  # then `apply_rules` names what is missing
  return Sizes(
    num_layers=max(layers, default=1),
    deter=arrays.get('wm.rssm._cell._norm.weight', nothing).shape[0] // 3,
    stoch=arrays.get('wm.rssm.obs_dist.bias', nothing).shape[0],
    has_context=any(name.startswith('wm.encoder.cond_') for name in arrays),
  )


def _expected(params: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
  """The variables that our modules have, of which only the widths are read."""
  depth = params['image_encoder']['conv_in']['kernel'].shape[-1]
  slot, hidden = params['latent_dynamics']['action_in']['kernel'].shape
  embed_size = 4 * depth * SIDE**2
  tower = image_encoder.ImageEncoder(depth, sizes.num_layers)
  decoder = image_decoder.ImageDecoder(
    depth,
    sizes.num_layers,
    num_heads=1,  # does not show in shapes, nor does the mask, nor groups
    image_size=IMAGE_SIZE,
    mask_ratio=0.0,
  )
  dynamics = rssm.RSSM(
    deter_size=sizes.deter,
    hidden=hidden,
    groups=1,
    classes=sizes.stoch,
    action_size=slot,
    embed_size=embed_size,
  )

  def init(key):
    image = jnp.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3))
    (embed, maps), encoder = tower.init_with_output(key, image, False)
    (state, _), latent = dynamics.init_with_output(
      key,
      embed[None],
      jnp.zeros((1, 1, slot)),
      jnp.ones((1, 1), bool),
      None,
      method='observe',
    )
    modules = {'image_encoder': encoder, 'latent_dynamics': latent}
    context = None
    if sizes.has_context:
      context = image_decoder.Context(coarse=maps[2], fine=maps[1])
      modules['context_encoder'] = encoder
    modules['image_decoder'] = decoder.init(
      key, state.feat, context, key[None], False
    )
    return modules

  expected = jax.eval_shape(init, jax.random.key(0))
  found = {'params': {}, 'batch_stats': {}}
  for name, module in expected.items():
    for collection, tree in module.items():
      found[collection][name] = tree
  return found


def main() -> None:
  checkpoints.main(__doc__, SOURCE, lambda path: convert(read(path)))


if __name__ == '__main__':
  main()
