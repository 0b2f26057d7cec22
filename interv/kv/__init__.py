"""KV policies: what a document may say of them, when they compact, and which tokens they keep."""
