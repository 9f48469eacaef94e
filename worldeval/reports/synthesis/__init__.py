"""What was imagined, judged, trusted and kept; and how diverse a dataset is. Text and pages."""
