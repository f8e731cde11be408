"""Side-by-side measurements: sampan and its peers in one run, as ratios of medians.

Absolute times of a shared machine mean nothing; the ratio of two medians taken alternately in the
same run does. ``python -m bench`` prints one table; ``python -m bench NAME...`` some rows.
"""
