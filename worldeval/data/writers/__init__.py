"""Writers of the formats that others train on."""
