"""The composition: a policy becomes a graph. Parsing reads YAML and nothing else."""
