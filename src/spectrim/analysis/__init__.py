"""What a model listens to: numbers about the patches it keeps, and pictures of them."""
