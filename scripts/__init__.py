"""The pipeline: from a pinned upstream release to a proven wheel, one module a stage."""
