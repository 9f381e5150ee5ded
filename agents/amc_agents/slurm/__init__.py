"""The agents of a sweep as the tasks of one Slurm array."""
