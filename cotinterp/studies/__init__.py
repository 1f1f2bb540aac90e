"""The standard measurements of one trained model: on which problems, how much, and against which untrained twin."""
