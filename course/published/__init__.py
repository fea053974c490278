"""Loading published weights into the course's own parts: reading a folder, and mapping its tensors."""
