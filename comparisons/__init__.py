"""Maximum likelihood and Bayes side by side, and how fast each approaches the truth."""
