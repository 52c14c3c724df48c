"""How well features predict human scores: photographs with mean opinion scores, several backbones, two regressors.

    python -m tests.benchmarks.quality                      all rows; hours on two cores
    python -m tests.benchmarks.quality --rows nano,brisque  some rows; what was made before is used again
    python -m tests.benchmarks.quality --rows severity      whether made-worse photographs get falling scores
    python -m tests.benchmarks.quality --quick              the same in small, on pictures made here, in a minute

The photographs are one-frame videos; which are trained on and which are tested on is decided by a hash of their file
names. Features lie in ordinary caches, so an interrupted run goes on where it was, and a row is cheap to redo.
"""
