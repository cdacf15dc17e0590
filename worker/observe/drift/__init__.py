"""Whether what is labelled still looks like what the adapter was made from."""
