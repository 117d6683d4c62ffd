"""One module a family of containers: reads its structure and plans how it is decoded; see `spectrim.audio.plan`."""
