"""What knows no model: arrays, parameters, precision, numerics, keys, threads, compilation."""
