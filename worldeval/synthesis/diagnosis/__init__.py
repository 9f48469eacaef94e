"""How diverse a dataset is, how fragmented its sources are, and what a policy makes of it."""
