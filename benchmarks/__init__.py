"""Speed, memory and faults of rxflow, side by side with the floor and with the alternatives."""
