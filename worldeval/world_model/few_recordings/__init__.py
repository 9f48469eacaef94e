"""Learning from few recordings: more clips of each, own replays to learn from and to stop by, and a
small decoder for latents that came with the data.

The options of `worldeval train world-model` that use it; ``benchmarks/droid_world.py`` is a study.
"""
