"""Token pruning: what ranks patches (`criteria`), which stay (`select`), when (`schedule`). Tensors only, no models."""
