"""Maximum likelihood and Bayes side by side: how fast does each approach the truth?"""
