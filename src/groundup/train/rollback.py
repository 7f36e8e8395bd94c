"""What follows from a refused step: it is written down, and after repeated ones the run goes back.

Going back means the last checkpoint from before the trouble, its samples up to now passed over, and
a lower learning rate (Chowdhery et al. 2022, arXiv 2204.02311, section 5.1, skipped 200 to 500
batches after spikes; the same data did not spike from another state). After `ROLLBACKS` times the
run stops and says what is known. Writes train/incidents/*.json, and a "rollback" event into the
ledger.
"""

from __future__ import annotations

from groundup.errors import GroundupError
from groundup.runtime.progress import say
from groundup.train import incident
from groundup.train.batch_spans import place, skipped
from groundup.train.guard import ROLLBACKS, SLOWER
from groundup.train.standing import Standing
from groundup.train.state import State
from groundup.train.step import Reading


class Trouble:
    """Refused steps of a training."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        # Why the run must go back; "" while it need not.
        self.reason = ""
        self._known = ""

    def refuse(self, reason: str, reading: Reading) -> None:
        """Write down a step that is not applied; the first of a row with all that is known of it."""
        standing = self.standing
        guard, step = standing.state.guard, standing.state.step
        first = guard.streak == 0
        if guard.refuse(step):
            self.reason = reason
        if standing.logbook is None:
            return
        say(f"  step {step}: {reason}; this step is not applied")
        standing.logbook.write(
            step, guard=reason, refused_loss=reading.loss, refused_norm=reading.norm
        )
        if first:
            self._examine(reason, reading)

    def _examine(self, reason: str, reading: Reading) -> None:
        standing, state = self.standing, self.standing.state
        first, sequences = place(state.spans, state.step)
        found = incident.examine(
            standing.root,
            standing.loader,
            standing.model,
            standing.parameters,
            standing.whole.machine,
            first,
            sequences,
        )
        known = {
            "step": state.step,
            "reason": reason,
            "loss": reading.loss,
            "gradient_norm": reading.norm,
            "first_sample": first,
        }
        path = incident.write(standing.root, state.step, state.guard.rollbacks, known | found)
        self._known = f"; {incident.summary(found)}; more in {path}"
        say(f"    {self._known[2:]}")

    def go_back(self) -> None:
        """Stand at the last checkpoint from before the trouble, behind the samples since, with a
        lower rate.

        Raises:
            GroundupError: the run has gone back often enough.
        """
        standing, before, reason = self.standing, self.standing.state, self.reason
        self.reason = ""
        if before.guard.rollbacks >= ROLLBACKS:
            raise GroundupError(self._farewell(reason))
        found = standing.checkpoints.latest_valid(calm=True)
        standing.take_over(found)
        self._pass_over(before)
        if standing.logbook is None:
            return
        state = standing.state
        # Newer ones belong to a course that is not taken.
        standing.checkpoints.prune(
            [step for step in standing.checkpoints.steps() if step <= state.step]
        )
        event = {
            "step": before.step,
            "to": state.step,
            "reason": reason,
            "skipped": list(state.skipped[-1]),
            "rate": state.guard.rate,
        }
        standing.changes.ledger.write_once("rollback", **event)
        standing.logbook.write(state.step, guard=f"back from step {before.step}: {reason}")
        say(
            f"  step {before.step}: {reason}; back to step {state.step}, learning rate times"
            f" {state.guard.rate:g}"
        )

    def _pass_over(self, before: State) -> None:
        """Go on behind the samples that were read since the checkpoint."""
        state = self.standing.state
        spans = state.spans or [(0, 0, before.spans[0][2])]
        first, after = place(spans, state.step)[0], place(before.spans, before.step)[0]
        state.spans = skipped(spans, state.step, after)
        state.skipped = [*state.skipped, (first, after)]
        state.guard.rollbacks = before.guard.rollbacks + 1
        state.guard.rate = before.guard.rate * SLOWER

    def _farewell(self, reason: str) -> str:
        step = self.standing.state.step
        return (
            f"step {step}: {reason}, after going back {ROLLBACKS} times{self._known}; "
            "lower [train] learning_rate, or take those documents out, and run again"
        )
