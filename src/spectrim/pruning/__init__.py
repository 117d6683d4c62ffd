"""Token pruning: the operating point, the criteria that rank patches, and the reducers that replace them by fewer.

Tensors and numbers only, no models; nothing here imports torch before it makes tensors, but `tokens`, `select`, `trace`
and `kernels`, which are about tensors.
"""
