"""The literature on negatives in retrieval, executable: one small file a paper.

A row is a module of this package with a `PAPER`: a claim, declared before it is run, a baseline and a
treatment out of trichrome's own parts, and a run that measures the effect. A new paper is one new file here,
its citation in `pattern/citations.py`, and nothing else. `pattern/` is what all rows share.
"""
