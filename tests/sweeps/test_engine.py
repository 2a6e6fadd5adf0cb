"""The engine on a backend that only pretends: order, retries, records of failures, runs that others make."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from damorl.experiment.config import resolve
from damorl.record import store
from damorl.sweeps import engine
from damorl.sweeps.engine import Progress, run_jobs
from damorl.sweeps.plan import Job
from damorl.sweeps.process import Outcome, outcome_of


def job(seed: int, algo: str = "bc") -> Job:
    return Job(resolve(algo, "hopper-medium", "smoke", (seed,), {}))


class Pretence:
    """Each attempt of a job ends at the next look, as its script says (`done` where that has run out)."""

    def __init__(self, slots: int, scripts: dict[str, list[Outcome]], out: Path) -> None:
        self.slots, self.scripts, self.out, self.closed = slots, scripts, out, False
        self.started: list[str] = []
        self.most = 0

    def start(self, jobs: Sequence[Job]) -> list[Any]:
        self.started += [job.name for job in jobs]
        return [[job] for job in jobs]  # lists: equal handles need not be the same

    def ended(self, handles: Sequence[Any]) -> list[tuple[Any, Outcome]]:
        self.most = max(self.most, len(handles))
        return [(handle, self.next_outcome(handle[0])) for handle in handles]

    def next_outcome(self, job: Job) -> Outcome:
        script = self.scripts.get(job.name, [])
        return script.pop(0) if script else Outcome("done")

    def close(self) -> None:
        self.closed = True


def work(
    tmp_path: Path, jobs: list[Job], scripts: dict[str, list[Outcome]], retries: int = 2, slots: int = 2
) -> tuple[Progress, Pretence, list[tuple[str, str]]]:
    backend, events = Pretence(slots, scripts, tmp_path), []
    progress = Progress(tmp_path, slots, list(jobs))
    show = lambda event, job, outcome: None if job is None else events.append((event, job.name))
    run_jobs(progress, backend, retries, show)
    return progress, backend, events


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(engine, "ELSEWHERE_SECONDS", 0.0)


def test_every_job_runs_once_and_never_more_than_the_slots(tmp_path: Path) -> None:
    jobs = [job(seed) for seed in range(5)]
    progress, backend, _ = work(tmp_path, jobs, {})
    assert backend.started == [each.name for each in jobs]
    assert backend.most == 2
    assert backend.closed
    assert len(progress.done) == 5


def test_what_was_killed_is_tried_again_and_what_a_user_did_wrong_is_not(tmp_path: Path) -> None:
    killed, wrong, cursed = job(0), job(1), job(2)
    kill, mistake = Outcome("killed", "by SIGKILL"), Outcome("user error", "gamma is wrong")
    scripts = {killed.name: [kill], wrong.name: [mistake], cursed.name: [kill] * 9}
    progress, backend, events = work(tmp_path, [killed, wrong, cursed], scripts)
    assert backend.started.count(killed.name) == 2
    assert backend.started.count(wrong.name) == 1
    assert backend.started.count(cursed.name) == 3  # two retries
    assert [(each.name, o.kind) for each, o in progress.failed] == [(wrong.name, "user error"), (cursed.name, "killed")]
    assert ("retry", killed.name) in events
    assert ("done", killed.name) in events


def test_a_failure_is_recorded_with_the_end_of_its_log_and_forgotten_once_it_is_done(tmp_path: Path) -> None:
    wrong = job(0)
    (tmp_path / wrong.name).mkdir()
    (tmp_path / wrong.name / "log.txt").write_text("\n".join(f"line {i}" for i in range(40)))
    work(tmp_path, [wrong], {wrong.name: [Outcome("user error", "gamma is wrong")]})
    found = store.read_json(tmp_path / wrong.name / "failure.json")
    assert (found["kind"], found["reason"], found["attempts"]) == ("user error", "gamma is wrong", 1)
    assert found["log"] == [f"line {i}" for i in range(20, 40)]
    work(tmp_path, [wrong], {})
    assert not (tmp_path / wrong.name / "failure.json").exists()


def test_a_run_that_another_process_makes_is_waited_for(tmp_path: Path) -> None:
    busy = job(0)
    progress, backend, _ = work(tmp_path, [busy], {busy.name: [Outcome("elsewhere", "busy")] * 3}, retries=0)
    assert backend.started == [busy.name] * 4
    assert not progress.failed
    assert len(progress.done) == 1


def test_a_result_that_appeared_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    there = job(0)
    (tmp_path / there.name).mkdir()
    store.write_json(tmp_path / there.name / store.RESULT, {})
    progress, backend, _ = work(tmp_path, [there], {})
    assert backend.started == []
    assert len(progress.done) == 1


def test_a_job_that_needs_a_fit_in_the_making_lets_others_pass(tmp_path: Path) -> None:
    first, same, free = job(0, "mopo"), job(0, "damo"), job(0, "bc")
    _, backend, _ = work(tmp_path, [first, same, free], {})
    assert backend.started == [first.name, free.name, same.name]


def test_the_backend_is_closed_when_interrupted(tmp_path: Path) -> None:
    backend = Pretence(1, {}, tmp_path)

    def interrupt(event: str, job: Job | None, outcome: Outcome | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(Progress(tmp_path, 1, [job(0)]), backend, 0, interrupt)
    assert backend.closed


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (0, "done", ""),
        (1, "crashed", "ValueError: no"),
        (2, "user error", "ValueError: no"),
        (3, "not finite", "ValueError: no"),
        (4, "out of memory", "ValueError: no"),
        (5, "elsewhere", "ValueError: no"),
        (77, "crashed", "ValueError: no"),
        (-signal.SIGKILL, "killed", "the process was ended by SIGKILL; the system does that when memory runs out"),
        (128 + signal.SIGSEGV, "killed", "the process was ended by SIGSEGV"),
    ],
)
def test_an_exit_code_tells_how_it_ended(code: int, kind: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("Traceback\nValueError: no\n\n")
    assert outcome_of(code, tmp_path) == Outcome(kind, said)
