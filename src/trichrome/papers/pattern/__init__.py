"""What all rows share: what a paper is, real text, small towers, intervals, and what becomes of a run."""
