"""How a network is fitted: where it starts, what a step computes, the loop and its callbacks."""
