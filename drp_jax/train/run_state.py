"""Records how far a fine-tuning has come, beside what it learned."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class Round:
  """A round of episodes that was left in the middle.

  Attributes:
    steps: actions that every environment was given.
    explore: whether they were random.
    failed: places of environments that failed in it.
    num_envs: in how many it was played; None in old checkpoints.
  """

  steps: int
  explore: bool
  failed: Sequence[int] = ()
  num_envs: int | None = None


@dataclasses.dataclass
class RunState:
  """Holds what a checkpoint's JSON says beside the replay; mutable.

  Attributes:
    agent_step: agent steps taken.
    episode: episodes begun.
    dropped: those of them whose environment failed.
    evaluated: agent step of the newest evaluation, -1 before the first.
    lines: where the file of metrics ends, from `Logger.sync`; 0 before the
      first, None for all of them, in old checkpoints.
    bad_steps: counts of `bad_steps.BadSteps`.
    round: the round under way; None between rounds.
  """

  agent_step: int = 0
  episode: int = 0
  dropped: int = 0
  evaluated: int = -1
  lines: list[int] | int | None = 0
  bad_steps: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
  round: Round | None = None

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values by name."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, found: Mapping[str, Any]) -> Self:
    """Reads what `to_json` returned, today or in an older version.

    Args:
      found: JSON of a checkpoint. What is not of the run is left out.
    """
    names = {field.name for field in dataclasses.fields(cls)}
    state = cls(lines=None)  # all, if it says nothing of them
    for name in names & found.keys():
      setattr(state, name, found[name])
    left: Any = state.round  # a dict, as JSON has it
    if left is not None:
      state.round = Round(**left)
    return state
