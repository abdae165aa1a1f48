"""Training: what was exported tunes a model on this machine, which comes back as a backend that is asked as it learned.

``methods`` says which ways there are and with which numbers each begins, ``sets`` reads an export, ``folders`` is what
a training leaves on disk and all that a page knows of it, ``work`` makes one, by ``fit`` or ``classifier``, and
``elsewhere`` prints the command of other trainers. Only ``fit`` and ``rows`` load torch, peft and trl, ``classifier``
torch where it begins; nothing else here may.
"""
