"""All showing: pages, plots, tables and sentences. Nothing is computed here that others need."""
