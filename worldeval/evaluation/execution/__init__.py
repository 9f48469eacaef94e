"""Who rolls out: this process, several of them, Ray's, or one of many machines."""
