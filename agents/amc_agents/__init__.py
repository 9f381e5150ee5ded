"""Put trials on workers: the trial process, the agents that start it, the commands that steer a sweep."""
