"""Files that go in and out: maps, meshes, shapes, videos, other programs' weights."""
