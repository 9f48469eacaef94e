"""The inspector: browse, compare, label and drive imagined rollouts in the browser."""
