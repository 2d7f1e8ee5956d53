"""How a study is run and kept: cells, engine, pools, store, pages, export."""
