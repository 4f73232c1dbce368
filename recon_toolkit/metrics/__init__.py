"""Metrics of depth, of images and of clouds, those that models and pipelines bring along, and their reports."""
