"""What an answer is worth: one file a metric, each a function of texts to a score in [0, 1]."""
