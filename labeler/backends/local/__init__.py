"""The backend ``transformers``: local weights, through their own chat template, on a GPU or a CPU."""
