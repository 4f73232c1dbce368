"""Evaluation: depth metrics, baselines, and scores of depth maps from files."""
