"""Programs whose bits are compared with those of another program."""

from __future__ import annotations

from functools import partial

import jax

exact_jit = partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})
"""`jax.jit` with the emitters that users have. Those of the tests (see conftest.py) round the same sum differently in
programs that differ elsewhere."""
