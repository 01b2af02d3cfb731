"""Transfer evaluation: score any vision backbone on real image data.

``eval.run`` is the public entry; importing the package imports neither torch nor timm, so that
``transfer-eval --help`` and a run that finds everything done answer at once.
"""
