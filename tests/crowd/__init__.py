"""A crowd of writers who save the same messages: what they are told, and the judge over it."""
