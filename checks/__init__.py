"""What has to hold of each part, for any implementation, and the classic mistakes. One file a lesson."""
