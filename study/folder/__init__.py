"""The run folder, the ground floor that study and analysis stand on: who writes, what, and where.

It needs pyarrow, NumPy and filelock, and knows neither Ray nor Optuna nor TensorFlow.
"""
