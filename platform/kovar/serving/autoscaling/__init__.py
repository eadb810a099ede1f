"""How many replicas an application has: the policy, its binding to Serve, its rehearsal."""
