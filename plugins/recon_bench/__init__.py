"""Ablation tables: rows of one pipeline trained, scored and compared, restartable, from one file."""
