"""A gate and experts make a model: one likelihood, ``moe.py``, and the parts it is made of."""
