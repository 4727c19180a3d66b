"""Ray: what a study runs on, and Ray Tune, which schedules the plan's trials there."""
