"""Constants of the recipe that turns a cell's inputs into a wheel."""

# The time of every timestamp inside a wheel, in seconds: 2020-01-01 UTC. It is constant because rebuilds must be equal.
SOURCE_DATE_EPOCH = 1_577_836_800
# Raise this when the same inputs give other bytes because the code of the pipeline has changed.
RECIPE = "3"
