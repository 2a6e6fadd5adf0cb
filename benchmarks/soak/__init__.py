"""The soak: what damorl promises of bad files, kills, full disks, clocks, long runs and other machines, tried out.

`python -m benchmarks.soak --help` lists the parts; docs/trust.md says what is promised.
"""
