"""The embedded data set: procedural snow figures with exact cameras, depth, normals, meshes."""
