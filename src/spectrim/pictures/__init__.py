"""Numbers to figures and pages; knows no models."""
