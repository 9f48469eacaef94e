"""A judge that asks a vision-language model; ``judge.py`` is the door."""
