"""Settings of protocols: what there is, its bounds, NAME=VALUE, schedules."""
