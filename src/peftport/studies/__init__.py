"""Studies: a planned grid of runs, from its specification to a store with every figure."""
