"""Evaluation: the product measures itself on what people approved."""
