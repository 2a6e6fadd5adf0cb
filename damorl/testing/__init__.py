"""What every algorithm and every task keeps, as checks for the tests of a package that adds one.

    from damorl.testing import check_algorithm, check_task

    def test_the_contract() -> None:
        check_algorithm(ALGORITHM)

They raise AssertionError with what was expected and what was found, and need no test framework. The library's own
algorithms are held to the same functions by `tests/algos/test_contract.py`.
"""

from __future__ import annotations

from damorl.testing.algorithms import check_algorithm
from damorl.testing.tasks import check_task

__all__ = ["check_algorithm", "check_task"]
