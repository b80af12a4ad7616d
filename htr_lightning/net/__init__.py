"""Networks in plain torch: no Lightning, no text, exportable as they stand."""
