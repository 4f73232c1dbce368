"""Data: decoding, packing and the packed form that training reads."""
