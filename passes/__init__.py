"""The compiler's middle: a program as a graph, and the passes that make it one update a site."""
