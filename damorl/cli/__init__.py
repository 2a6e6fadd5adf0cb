"""The command line: it parses, calls, prints, and turns a user's mistake into one sentence and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from damorl._version import __version__
from damorl.cli import (
    data,
    export,
    film,
    finetune,
    leaderboard,
    model,
    ope,
    paper,
    plugins,
    report,
    score,
    select,
    sweep,
    theory,
    tools,
    train,
    zoo,
)
from damorl.errors import UserError

USAGE = """damorl: offline model-based reinforcement learning around DAMO (arXiv 2502.00850)

  damorl train [ALGO] [--dataset NAME|PATH|MINARI_ID] [--preset smoke|quick|standard|paper] [--seeds 0 1 2] [--resume]
               [--population divergence_weight=0.3,1,3]  several settings in one program
  damorl finetune RUN_DIR [--env ENV] [--dataset DATA] [--steps N]    real steps or more data for an offline run
  damorl sweep GRID.toml [--backend local|ray|slurm]      many runs: every core, every node, nothing lost
  damorl eval RUN_DIR|FILE|zoo:NAME [--noise S]           score policies in the simulator
              [--vary friction=0.8,1.2 mass=1.5]          and under changed physics
  damorl film RUN_DIR|FILE|zoo:NAME... [--seed S]         policies at work, side by side, as WebP or GIF
  damorl zoo [NAME]                                       trained policies that come with the package
  damorl select RUN_DIR...                                choose a policy without a simulator
  damorl ope RUN_DIR...                                   off-policy estimates of its policies, side by side
  damorl model RUN_DIR|DATASET [--horizon N]              how far a learned model can be trusted
  damorl report RUN_DIR|DIR... [--out report.html]        curves, tables and intervals as one page
  damorl leaderboard compare A B | summary DIR...         two stores of runs seed by seed; all scores as JSON
  damorl export RUN_DIR [--format onnx|jax]               the policy as one file
  damorl data list | make NAME|--all | download NAME | info SOURCE | check SOURCE |
              export SOURCE minari ID | train-behaviour TASK
  damorl theory [--cases N] [--json]                      the paper's theorems, checked exactly on random problems
  damorl paper [list | fig1 ... fig5 | table1 | table2] [--scale smoke|quick|full]    the paper's figures, made anew
  damorl bench [--algo all|NAME...] [--compare CHECKOUT|JSON] [--json]
  damorl plugins [--json]                                 algorithms, tasks and readers of other packages
  damorl --version

Each of them explains itself with --help. A built-in data set is made by whatever first needs it (--no-make: refused).
A first run:

  damorl train damo --dataset hopper-medium-expert --preset quick
"""


Verb = Callable[[list[str]], int]

DATA_VERBS: dict[str, Verb] = data.VERBS | {"train-behaviour": tools.data_train_behaviour}
VERBS: dict[str, Verb] = {
    "train": train.train_verb,
    "finetune": finetune.finetune_verb,
    "sweep": sweep.sweep_verb,
    "eval": score.eval_verb,
    "film": film.film_verb,
    "zoo": zoo.zoo_verb,
    "select": select.select_verb,
    "ope": ope.ope_verb,
    "model": model.model_verb,
    "report": report.report_verb,
    "leaderboard": lambda argv: dispatch(leaderboard.VERBS, argv, "damorl leaderboard"),
    "export": export.export_verb,
    "data": lambda argv: dispatch(DATA_VERBS, argv, "damorl data"),
    "theory": theory.theory_verb,
    "paper": paper.paper_verb,
    "plugins": plugins.plugins_verb,
    "bench": tools.bench_verb,
}


def dispatch(verbs: dict[str, Verb], argv: list[str], prog: str) -> int:
    """Call the verb named by the first word."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in verbs:
        raise UserError(f"unknown command '{prog} {argv[0]}': choose one of {', '.join(verbs)}")
    return verbs[argv[0]](argv[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print(f"damorl {__version__}")
        return 0
    try:
        code = dispatch(VERBS, words, "damorl")
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # who reads, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"damorl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("damorl: interrupted; continue with --resume", file=sys.stderr)
        return 130
