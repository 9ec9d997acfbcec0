"""Benchmarks: this library beside the limit and the alternatives, interleaved, as ratios.

Run them with `nox -s benchmarks`, or `python -m benchmarks` with `tests` on the path; `--help`
says what they take. The core is own code, because neither pyperf nor pytest-benchmark interleaves:
both measure one contender to its end before the next, so that a neighbour who wakes up in between
is taken for a difference between the two. Here contenders take turns, in a new order every round.
"""
