"""What people see of a study that runs: lines, a live view, the log, MLflow. It only listens."""
