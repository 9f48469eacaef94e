"""How a ranking is shown: one self-contained page, a table for the terminal, plain findings."""
