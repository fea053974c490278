"""What must hold for each part, for any implementation, and the classic mistakes; one lesson per file."""
