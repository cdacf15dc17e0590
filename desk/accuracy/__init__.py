"""How right the machine is in service, from the audit sample; what review costs; the alert."""
