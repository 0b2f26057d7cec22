"""The demo's model: fetched once, converted, checked."""
