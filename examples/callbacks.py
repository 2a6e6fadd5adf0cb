"""Keep the best policies of a run, and stop it at a target score.

python examples/callbacks.py --dataset hopper-medium-expert --target 60
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Sequence

import damorl


class Target(damorl.Callback):
    """Keeps a copy of the policies with the best mean score, and stops at `target`."""

    def __init__(self, target: float) -> None:
        self.target, self.best = target, float("-inf")

    def on_evaluation(self, event: damorl.Event) -> None:
        score = statistics.fmean(row["eval/score"] for row in event.rows)
        if score > self.best:
            self.best = score
            shutil.copy(event.run_dir / "policies.safetensors", event.run_dir / "best.safetensors")
        if score >= self.target:
            raise damorl.Stop(f"the mean score reached {score:.1f}")

    def on_end(self, event: damorl.EndEvent) -> None:
        print(f"{event.status} after {event.step:,} updates; best mean score {self.best:.1f} {event.reason}")


def main(argv: Sequence[str] | None = None) -> damorl.Result:
    """Train with the callback and a time budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algo", default="damo")
    parser.add_argument("--dataset", default="hopper-medium-expert")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--out", default="runs")
    parser.add_argument("--target", type=float, default=60.0)
    args = parser.parse_args(argv)
    callbacks = [Target(args.target), damorl.TimeBudget(minutes=10)]
    return damorl.train(args.algo, args.dataset, args.preset, out=args.out, callbacks=callbacks)


if __name__ == "__main__":
    main()
