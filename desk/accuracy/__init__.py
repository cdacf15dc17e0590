"""The model's accuracy in service, from the audit sample; the cost of review; the alert."""
