"""Networks in plain torch, without Lightning and text; they can be exported as they are."""
