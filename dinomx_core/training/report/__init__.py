"""`report.html`: a run in one file that needs nothing else."""
