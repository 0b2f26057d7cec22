"""The graph that Dynamo captured of a model: its sites, and what is put into it."""
