"""The canonical update of one site, and the columns that it is made of."""
