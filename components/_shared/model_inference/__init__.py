"""What asks a model for answers: the components that generate, score, judge and run prompt flows share it."""
