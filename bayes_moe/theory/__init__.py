"""What the theorems are about: losses, Voronoi cells, Fisher information, solvability."""
