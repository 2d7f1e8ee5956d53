"""What is done with draws: diagnostics, invariants, relabelling, leave-one-out, dendrograms."""
