"""The paper's analysis: which patches a model keeps on a data set, what they are like, and what ablations cost."""
