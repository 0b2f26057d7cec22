"""What a person wrote, in any form: text, data, Python; and what is wrong with it."""
