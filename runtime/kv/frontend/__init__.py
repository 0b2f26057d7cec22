"""KV policies where requests are taken: what is asked, refused and told."""
