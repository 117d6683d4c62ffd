"""Plans of many runs, the runner that resumes them, and their reports."""
