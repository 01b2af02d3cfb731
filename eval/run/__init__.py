"""Models x tasks x protocols: plan, execute, cost, verify."""
