"""Rows in, tables and figures out: rates, coverage, summaries."""
