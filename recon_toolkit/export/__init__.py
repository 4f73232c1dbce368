"""Export: maps, meshes and contact sheets of reconstructions and data."""
