"""A fair study of ways to pretrain: a search for each arm, finals with several seeds, curves over the budget."""
