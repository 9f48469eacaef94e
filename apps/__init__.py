"""Apps for people over the library: they import its public names and ``worldeval.reports`` only."""
