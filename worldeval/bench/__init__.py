"""What one interaction costs: seconds, operations, bytes."""
