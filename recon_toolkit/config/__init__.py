"""Pipelines: reading YAML with places, joining files, and validation against the components' own signatures."""
