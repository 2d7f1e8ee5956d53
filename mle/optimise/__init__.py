"""Maximum likelihood of a mixture: objective, steps, starts, certificate, standard errors."""
