"""Augmentation: for rare labels a model writes reviews after approved ones, and people decide on each (Self-Instruct).

The idea is that of Wang et al. 2022 (arXiv:2212.10560): a prompt shows a few texts, most of them by people and some
that were written and approved before; what comes back is sifted by how like it is to what is there. Here it must also
be what the free suggestion takes for the label that was asked for, and whatever is left waits at the desk like any
record, pending and marked.
"""
