"""Measures one's own models: queries go to their endpoints, answers are scored, and benchmark records come out."""
