"""What a type checker is told of Flax modules."""

from typing import TYPE_CHECKING, Any

from flax import linen as nn


class Network(nn.Module):
  """A module that systems call from outside, by `init` and `apply`.

  Flax says of both that they may return a pair; what they return follows from
  the method and from `mutable`, which no annotation can say.
  """

  if TYPE_CHECKING:

    def init(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
      """See `flax.linen.Module.init`."""
      raise NotImplementedError

    def apply(self, *args: Any, **kwargs: Any) -> Any:
      """See `flax.linen.Module.apply`."""
      raise NotImplementedError
