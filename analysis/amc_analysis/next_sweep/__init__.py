"""The next sweep, proposed from the runs of this one."""
