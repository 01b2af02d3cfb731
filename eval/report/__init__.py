"""``transfer-eval report``: results and findings as one page that needs nothing beside itself.

``gather`` reads, ``boards``, ``pairs``, ``forest``, ``found`` and ``receipts`` make its sections,
``words`` its sentences, ``svg`` its pictures, and ``page`` puts them together. Results may come
from anywhere: whatever is not ours is escaped by the template, and drawn as it is written.
"""
