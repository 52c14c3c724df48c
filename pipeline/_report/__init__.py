"""``diffvqa report``: one HTML file that tells all there is to know of a data set and the model trained on it."""
