"""Networks at rest and at work: cards, graphs, and the engines that run them."""
