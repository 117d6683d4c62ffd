"""What Spectrim is timed beside: the peers are imported, or their arithmetic is our own writing."""
