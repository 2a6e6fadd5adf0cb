"""Look every package of uv.lock up among the known vulnerabilities: python release/audit.py UV [OPTIONS OF uv audit]

One question to OSV (api.osv.dev). Exit code 1 if a package has a vulnerability. Where the service does not answer
within seconds, that is said in one line and nothing fails: a machine without a network can still check its work.
"""

from __future__ import annotations

import os
import subprocess
import sys

SECONDS = 20
QUICK = {"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "5", "UV_HTTP_CONNECT_TIMEOUT": "5"}
UNREACHED = ("error sending request", "HTTP status server error", "timed out")
"""How uv says that the service did not answer."""


def audit(uv: str, options: list[str]) -> int:
    """Run `uv audit` and pass on what it says; the exit code."""
    command = [uv, "audit", "--frozen", "--preview-features", "audit", *options]
    try:
        found = subprocess.run(
            command, env=os.environ | QUICK, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return unreached(f"no answer within {SECONDS} s")
    said = f"{found.stdout}{found.stderr}".strip()
    if found.returncode > 1 and any(sign in said for sign in UNREACHED):
        return unreached(said.splitlines()[-1].strip().removeprefix("cause: "))
    print(said)
    return found.returncode


def unreached(reason: str) -> int:
    """Say that nothing was looked up."""
    print(f"audit: not done, the service of known vulnerabilities was not reached ({reason})")
    return 0


if __name__ == "__main__":
    sys.exit(audit(sys.argv[1], sys.argv[2:]))
