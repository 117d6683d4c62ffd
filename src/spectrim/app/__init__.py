"""The page of ``spectrim app``: a sound in, what a model keeps of it out, while one turns the knobs."""
