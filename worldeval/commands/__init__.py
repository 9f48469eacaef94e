"""One module per verb: a frozen dataclass whose fields are the options and whose ``run`` calls the
room that does the work. No work is done here, and no room is imported before it is needed."""
