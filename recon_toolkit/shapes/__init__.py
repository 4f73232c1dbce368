"""The forms of a shape (point cloud, triangle mesh, voxel grid), the ways between them, and their files."""
