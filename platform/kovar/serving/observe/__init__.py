"""What is seen of requests from outside: logs, captures, metrics, spans."""
