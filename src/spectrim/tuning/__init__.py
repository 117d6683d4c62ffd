"""`spectrim tune`: a target in, an operating point out, with what can be promised of it."""
